-- Return the search path of the session, the current user, and the roles besides the
-- owner that may create objects in public.
SELECT current_setting('search_path'), quote_ident(current_user::text),
  (SELECT string_agg(coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ' ORDER BY r.rolname NULLS FIRST)
   FROM pg_catalog.pg_namespace AS n
   CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
   LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
   WHERE n.nspname = 'public' AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner)
