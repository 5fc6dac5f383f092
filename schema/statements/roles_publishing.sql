-- Return the roles that may log in and have one of the rights that only a publisher needs: to
-- announce itself, and to renew a lease. A superuser has every right.
SELECT r.rolname
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_namespace AS n ON n.nspname = %(schema)s
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
WHERE r.rolcanlogin AND NOT r.rolsuper
  AND (c.relname = 'outbox_publishers' AND has_table_privilege(r.oid, c.oid, 'INSERT')
    OR c.relname = 'outbox_leases' AND has_table_privilege(r.oid, c.oid, 'UPDATE'))
GROUP BY r.rolname ORDER BY r.rolname LIMIT {shown}
