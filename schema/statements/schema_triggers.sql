-- Return the triggers, rules and policies of tables and views. They exist on PostgreSQL only. The
-- triggers of foreign keys, and the rule that makes a view, are left out.
SELECT c.relname AS relation, x.part, x.name
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
JOIN (
  SELECT tgrelid AS relation, 'trigger' AS part, tgname AS name
  FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
  UNION ALL
  SELECT ev_class, 'rule', rulename FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN'
  UNION ALL
  SELECT polrelid, 'policy', polname FROM pg_catalog.pg_policy) AS x ON x.relation = c.oid
WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s::text::text[])
ORDER BY c.relname, x.part, x.name
