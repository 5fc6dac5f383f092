-- Whether the grant of one column is in force for that column, and for another.
SELECT has_column_privilege('public', c.oid, 'shard', 'SELECT'),
  has_column_privilege('public', c.oid, 'doc', 'SELECT')
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
WHERE s.nspname = %(schema)s AND c.relname = 'doctor_scratch'
