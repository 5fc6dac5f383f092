-- What the asking role lacks for each duty, and whether the table is there at all.
SELECT n.duty, n.name, n.held, c.oid IS NOT NULL
FROM (VALUES
  ('writer', 'business_events', 'SELECT'), ('writer', 'business_events', 'INSERT'),
  ('writer', 'event_headers', 'SELECT'), ('writer', 'event_headers', 'INSERT'),
  ('writer', 'entities', 'SELECT'), ('writer', 'entities', 'INSERT'),
  ('writer', 'entities', 'UPDATE'), ('writer', 'outbox', 'INSERT'),
  ('writer', 'outbox_backlog', 'SELECT'), ('writer', 'outbox_leases', 'SELECT'),
  ('publisher', 'outbox', 'SELECT'), ('publisher', 'outbox', 'DELETE'),
  ('publisher', 'outbox_backlog', 'SELECT'), ('publisher', 'outbox_leases', 'SELECT'),
  ('publisher', 'outbox_leases', 'UPDATE'), ('publisher', 'outbox_publishers', 'SELECT'),
  ('publisher', 'outbox_publishers', 'INSERT'), ('publisher', 'outbox_publishers', 'UPDATE'),
  ('publisher', 'outbox_publishers', 'DELETE'), ('publisher', 'outbox_failures', 'SELECT'),
  ('publisher', 'outbox_failures', 'INSERT'), ('publisher', 'outbox_failures', 'UPDATE'),
  ('publisher', 'outbox_failures', 'DELETE'), ('publisher', 'dead_letters', 'INSERT'),
  ('operator', 'schema_migrations', 'SELECT'), ('operator', 'outbox_backlog', 'SELECT'),
  ('operator', 'outbox_leases', 'SELECT'), ('operator', 'outbox_publishers', 'SELECT'),
  ('operator', 'outbox_failures', 'SELECT'), ('operator', 'outbox_failures', 'UPDATE'),
  ('operator', 'outbox_failures', 'DELETE'), ('operator', 'dead_letters', 'SELECT'),
  ('operator', 'dead_letters', 'UPDATE'), ('operator', 'dead_letters', 'DELETE'),
  ('operator', 'business_events', 'SELECT'), ('operator', 'event_headers', 'SELECT'),
  ('operator', 'entities', 'SELECT'), ('operator', 'entities', 'UPDATE'),
  ('operator', 'outbox', 'INSERT'), ('operator', 'outbox_replays', 'SELECT'),
  ('operator', 'outbox_replays', 'INSERT')) AS n(duty, name, held)
LEFT JOIN pg_catalog.pg_namespace AS s ON s.nspname = %(schema)s
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = s.oid AND c.relname = n.name
WHERE c.oid IS NULL
  OR NOT (has_schema_privilege(s.oid, 'USAGE') AND has_table_privilege(c.oid, n.held))
ORDER BY n.duty, n.name, n.held
