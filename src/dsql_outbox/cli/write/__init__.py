"""``dsql-outbox write``: events from files and standard input into the database."""
