-- Return the indexes of a schema with their columns in order, without those of primary
-- keys. Not valid: the index is being built, or its build has failed.
SELECT c.relname AS name, t.relname AS table_name, i.indisvalid AS valid, a.attname AS column_name
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid AND NOT i.indisprimary
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum <= i.indnkeyatts
WHERE n.nspname = %(schema)s
ORDER BY c.relname, a.attnum
