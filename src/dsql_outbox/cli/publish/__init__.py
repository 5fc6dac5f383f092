"""``dsql-outbox publish``: the relay as a daemon or a job."""
