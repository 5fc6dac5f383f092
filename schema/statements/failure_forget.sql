-- Delete failures: the messages were delivered, or an operator wants them tried again.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.outbox_failures f
USING unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS k(shard, position, event_id)
WHERE f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
