-- Return the transactions of this database that are open, on PostgreSQL. A transaction has its
-- virtual id before its first snapshot, so one that began before a commit is found after it, also if
-- it has written nothing yet: `pg_snapshot_xmin` would miss it. Autovacuum has no user.
SELECT l.virtualxid
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock'
  AND a.datname = current_database() AND a.usesysid IS NOT NULL AND l.pid <> pg_backend_pid()
