-- Return which of these roles exist, and whether each is a superuser, who has all rights.
SELECT rolname, rolsuper FROM pg_catalog.pg_roles
WHERE rolname = ANY(%(roles)s::text::text[])
