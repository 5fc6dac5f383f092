-- Let messages in the outbox have the bytes that their events have now. Their keys stay, so their
-- order does.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.outbox o
SET payload = CASE WHEN o.payload IS NULL THEN NULL ELSE b.event_data::text END,
  payload_size = b.event_size, headers = k.headers::json
FROM unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(headers)s::text::text[]))
  AS k(shard, position, event_id, headers)
JOIN {schema}.business_events b ON b.id = k.event_id
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
