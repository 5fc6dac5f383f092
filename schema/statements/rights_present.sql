-- What roles may do here: on the schema itself (no table), and on its tables and
-- views. A right counts from wherever it comes: a grant, a membership, ownership.
SELECT r.rolname, NULL AS name, 'USAGE' AS held
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_namespace AS n ON n.nspname = %(schema)s
WHERE r.rolname = ANY(%(roles)s::text::text[]) AND has_schema_privilege(r.oid, n.oid, 'USAGE')
UNION ALL
SELECT r.rolname, c.relname, p.held
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_namespace AS n ON n.nspname = %(schema)s
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v')
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(held)
WHERE r.rolname = ANY(%(roles)s::text::text[]) AND has_table_privilege(r.oid, c.oid, p.held)
