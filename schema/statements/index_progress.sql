-- PostgreSQL: return whether a session is building this index.
SELECT p.phase FROM pg_catalog.pg_stat_progress_create_index AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.index_relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
