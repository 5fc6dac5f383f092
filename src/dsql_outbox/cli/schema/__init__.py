"""``dsql-outbox schema``: create, plan, check and grant."""
