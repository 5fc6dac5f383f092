-- Return all rights that somebody was granted on a schema, on its tables and views of these names and
-- their columns, and on the database. `grantee` is NULL for PUBLIC. The owner of each has a row with
-- the right OWNER, too.
WITH relation AS (
  SELECT c.oid, c.relname, c.relowner, c.relacl
  FROM pg_catalog.pg_namespace AS n
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v')
  WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s::text::text[])
), thing AS (
  SELECT 'schema' AS kind, nspname AS name, NULL AS field, nspowner AS owner,
    coalesce(nspacl, acldefault('n', nspowner)) AS acl
  FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s
  UNION ALL
  SELECT 'database', datname, NULL, datdba, coalesce(datacl, acldefault('d', datdba))
  FROM pg_catalog.pg_database WHERE datname = current_database()
  UNION ALL
  SELECT 'table', relname, NULL, relowner, coalesce(relacl, acldefault('r', relowner))
  FROM relation
  UNION ALL
  SELECT 'table', relation.relname, a.attname, relation.relowner, a.attacl
  FROM relation
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = relation.oid AND a.attacl IS NOT NULL
), granted AS (
  SELECT thing.kind, thing.name, thing.field, thing.owner, entry.grantee, entry.grantor,
    entry.privilege_type AS held, entry.is_grantable
  FROM thing
  CROSS JOIN LATERAL aclexplode(thing.acl) AS entry
  UNION ALL
  SELECT kind, name, NULL, owner, owner, owner, 'OWNER', false FROM thing WHERE field IS NULL
)
SELECT granted.kind, granted.name, granted.field, owner.rolname AS owner, grantee.rolname AS grantee,
  grantor.rolname AS grantor, granted.held, granted.is_grantable
FROM granted
JOIN pg_catalog.pg_roles AS owner ON owner.oid = granted.owner
JOIN pg_catalog.pg_roles AS grantor ON grantor.oid = granted.grantor
LEFT JOIN pg_catalog.pg_roles AS grantee ON grantee.oid = granted.grantee
ORDER BY granted.kind, granted.name, grantee.rolname, granted.held, granted.field
