-- Delete exactly the acknowledged rows, by the whole key and never by a range.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.outbox o
USING unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS k(shard, position, event_id)
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
