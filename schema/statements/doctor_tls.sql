-- The version of TLS that this session speaks; PostgreSQL knows, DSQL may not.
SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()
