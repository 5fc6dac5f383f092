-- Which of these roles exist, and whether they are superusers, who may do all.
SELECT rolname, rolsuper FROM pg_catalog.pg_roles
WHERE rolname = ANY(%(roles)s::text::text[])
