-- Return the roles as which the current role may act: itself, and those that it is a member of. This
-- is not pg_has_role, for which a superuser is a member of every role. The options exist since
-- PostgreSQL 16, where the one who creates a role is a member that may only administer it.
WITH RECURSIVE acting AS (
  SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user
  UNION
  SELECT m.roleid
  FROM pg_catalog.pg_auth_members AS m
  JOIN acting ON acting.oid = m.member
  WHERE coalesce(
    (to_jsonb(m) ->> 'inherit_option')::boolean OR (to_jsonb(m) ->> 'set_option')::boolean, true)
)
SELECT r.rolname FROM acting JOIN pg_catalog.pg_roles AS r ON r.oid = acting.oid
