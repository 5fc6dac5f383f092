"""``dsql-outbox console``: web pages that show the outbox. `dsql_outbox.console` makes them."""
