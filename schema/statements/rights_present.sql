-- Return the rights of roles on the schema (table is null) and on its tables and views.
-- A right counts whether it comes from a grant, a membership or ownership.
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
