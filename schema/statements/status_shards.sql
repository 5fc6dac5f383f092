-- Return per shard the owner, the seconds until its lease ends, and the age in seconds
-- and the position of the oldest message. Positions follow the database's clock, so the
-- oldest row is the head of the shard's key range: one index probe per shard.
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
