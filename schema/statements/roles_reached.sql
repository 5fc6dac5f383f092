-- Return as whom each of these roles may act: as itself, and as the roles that it is a member of, directly
-- or through others. An ADMIN OPTION counts, because its holder can give itself the membership. `first`
-- is the membership of the role itself on the way, and NULL for the role. It has a row per grantor.
-- REVOKE needs no name for the role of the installation, which is always 10. has_passed_on: the role has
-- given this membership to others.
WITH RECURSIVE reached AS (
  SELECT r.oid AS role, r.oid AS first, r.oid AS acting
  FROM pg_catalog.pg_roles AS r
  WHERE r.rolname = ANY(%(roles)s::text::text[])
  UNION
  SELECT reached.role,
    CASE WHEN reached.acting = reached.role THEN m.roleid ELSE reached.first END,
    m.roleid
  FROM reached
  JOIN pg_catalog.pg_auth_members AS m ON m.member = reached.acting
)
SELECT role.rolname AS role,
  CASE WHEN first.oid <> role.oid THEN first.rolname END AS first,
  acting.rolname AS acting,
  CASE WHEN m.grantor <> 10 THEN grantor.rolname END AS grantor,
  EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members AS passed
    WHERE passed.roleid = first.oid AND passed.grantor = role.oid) AS has_passed_on,
  concat_ws(' ',
    CASE WHEN acting.rolsuper THEN 'SUPERUSER' END,
    CASE WHEN acting.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN acting.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN acting.rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN acting.rolreplication THEN 'REPLICATION' END) AS attributes
FROM reached
JOIN pg_catalog.pg_roles AS role ON role.oid = reached.role
JOIN pg_catalog.pg_roles AS first ON first.oid = reached.first
JOIN pg_catalog.pg_roles AS acting ON acting.oid = reached.acting
LEFT JOIN pg_catalog.pg_auth_members AS m ON m.member = role.oid AND m.roleid = first.oid
LEFT JOIN pg_catalog.pg_roles AS grantor ON grantor.oid = m.grantor
ORDER BY role.rolname, first.rolname, acting.rolname, grantor.rolname
