-- Give the messages of the event that says so bytes of their own: the pseudonym in the stored ones
-- would tell a consumer nothing.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.outbox o
SET payload = %(data)s::text, payload_size = octet_length(%(data)s::text)
FROM unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS k(shard, position, event_id)
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
