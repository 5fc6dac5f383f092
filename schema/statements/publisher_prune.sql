-- Publishers that died without saying so. Their rows count for nothing after one
-- lease, and would stay for ever. No more at once than a transaction may change.
DELETE FROM {schema}.outbox_publishers p
USING (
  SELECT s.owner FROM {schema}.outbox_publishers s
  WHERE s.seen_at < clock_timestamp() - %(seconds)s::float8 * interval '1 second'
  LIMIT 1000) AS gone
WHERE p.owner = gone.owner
