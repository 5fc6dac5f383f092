-- Put another text in the place of the errors of messages.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.outbox_failures f
SET last_error = %(error)s
FROM unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS k(shard, position, event_id)
WHERE f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
