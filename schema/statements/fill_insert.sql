-- Insert the messages of stored events for a target, with the positions that they have in all
-- targets. They only name their events. One that is there was inserted with its event, by a writer that knew the target already.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, payload_size, created_at)
SELECT %(first)s + b.shard, b.position, b.id, b.previous_position, b.subject_type, b.subject_id,
  b.subject_version, b.topic, k.headers::json, NULL, b.event_size, clock_timestamp()
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(headers)s::text::text[]))
  AS k(event_id, headers)
JOIN {schema}.business_events b ON b.id = k.event_id
ON CONFLICT (shard, position, event_id) DO NOTHING
