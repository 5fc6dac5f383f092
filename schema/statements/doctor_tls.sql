-- Return the TLS version of this session. PostgreSQL reports it; DSQL may not.
SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()
