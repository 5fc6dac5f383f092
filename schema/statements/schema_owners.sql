-- Return who owns a schema (relation is null) and each thing in it that has the name of one of these
-- tables and views, of whatever kind it is. is_trusted: the owner is the current role, or a superuser,
-- who may do everything anyway. may_all: the current role is a superuser. has_more: perhaps it has
-- triggers, rules or policies.
WITH found AS (
  SELECT NULL AS relation, 'schema' AS kind, n.nspowner AS owner, false AS has_more,
    false AS has_row_security, NULL AS options
  FROM pg_catalog.pg_namespace AS n
  WHERE n.nspname = %(schema)s
  UNION ALL
  SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END, c.relowner,
    c.relhastriggers OR c.relrowsecurity OR c.relhasrules AND c.relkind <> 'v', c.relrowsecurity,
    CASE c.relkind WHEN 'v' THEN array_to_string(c.reloptions, ', ') END
  FROM pg_catalog.pg_namespace AS n
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
  WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s::text::text[])
)
SELECT found.relation, found.kind, coalesce(r.rolname, found.owner::text) AS owner,
  coalesce(r.rolname = current_user OR r.rolsuper, false) AS is_trusted, current_user AS me,
  coalesce(me.rolsuper, false) AS may_all, found.has_more, found.has_row_security, found.options
FROM found
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = found.owner
LEFT JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user
ORDER BY found.relation NULLS FIRST
