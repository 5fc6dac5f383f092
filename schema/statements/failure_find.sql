-- Return the failures of some rows, as far as they are recorded and the rows exist. seconds: until
-- the next attempt, or infinity if blocked. It subtracts two epochs, because PostgreSQL before
-- 17 cannot subtract from infinity.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
SELECT f.shard, f.position, f.event_id::text AS event_id, f.attempts,
  (extract(epoch FROM f.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds
FROM unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS k(shard, position, event_id)
JOIN {schema}.outbox_failures f
  ON f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
JOIN {schema}.outbox o
  ON o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
