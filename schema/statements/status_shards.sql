-- Per shard: who relays it, for how many seconds yet, and the age in seconds and the
-- position of what waits longest. The head of the shard's key range, so one index probe a
-- shard; positions follow the database's clock, so the head is the oldest row.
SELECT l.shard, l.owner, l.epoch,
  (extract(epoch FROM l.expires_at) - extract(epoch FROM clock_timestamp()))::float8 AS expires,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM b.created_at))::float8 AS age,
  b.position
FROM {schema}.outbox_leases l
LEFT JOIN LATERAL (
  SELECT created_at, position FROM {schema}.outbox_backlog o
  WHERE o.shard = l.shard ORDER BY o.position LIMIT 1
) AS b ON true
ORDER BY l.shard
