-- Return the tables and views of a schema with their columns, from the catalog. No row: the
-- schema does not exist. One row of nulls: it is empty. information_schema would hide objects
-- that the current role has no right to.
SELECT c.relname AS relation, c.relkind = 'v' AS view, a.attname AS name,
  format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
  array_position(k.conkey, a.attnum) AS key_place
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v')
LEFT JOIN pg_catalog.pg_attribute AS a
  ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE n.nspname = %(schema)s
ORDER BY c.relname, a.attnum
