-- Return the prepared transactions of this database, on PostgreSQL. They have no virtual id any
-- more, and commit whenever somebody says so.
SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
