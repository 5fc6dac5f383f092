"""``dsql-outbox doctor``: check a database before production."""
