-- Return the deleted rows of the outbox that are still in its table, whether autovacuum runs, and the
-- oldest holder of such rows, on PostgreSQL: its kind, its name, its user, and for how many seconds.
-- A role sees the sessions of other users only with the rights of pg_read_all_stats.
SELECT s.n_dead_tup,
  current_setting('autovacuum')::bool
    AND NOT coalesce('autovacuum_enabled=false' = ANY(c.reloptions), false),
  h.kind, h.name, h.owner, h.seconds
FROM pg_catalog.pg_stat_user_tables s
JOIN pg_catalog.pg_class c ON c.oid = s.relid
LEFT JOIN LATERAL (
  SELECT * FROM (
    SELECT 'session' AS kind, a.pid::text AS name, a.usename::text AS owner,
      extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
      age(a.backend_xmin) AS transactions
    FROM pg_catalog.pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
      AND a.backend_type = 'client backend'
    UNION ALL
    SELECT 'prepared transaction', p.gid, p.owner::text,
      extract(epoch FROM clock_timestamp() - p.prepared)::float8, age(p.transaction)
    FROM pg_catalog.pg_prepared_xacts p WHERE p.database = current_database()
    UNION ALL
    SELECT 'replication slot', r.slot_name::text, NULL, NULL, age(r.xmin)
    FROM pg_catalog.pg_replication_slots r
  ) AS every
  WHERE every.transactions IS NOT NULL
  ORDER BY every.transactions DESC LIMIT 1
) AS h ON true
WHERE s.schemaname = %(schema)s AND s.relname = 'outbox'
