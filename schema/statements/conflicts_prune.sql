-- Delete conflict reports that are a day old, at most 1,000 at once.
DELETE FROM {schema}.outbox_conflicts c
USING (
  SELECT o.owner FROM {schema}.outbox_conflicts o
  WHERE extract(epoch FROM clock_timestamp()) - extract(epoch FROM o.seen_at) > 86400
  LIMIT 1000) AS old
WHERE c.owner = old.owner
