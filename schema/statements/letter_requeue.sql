-- Insert dead letters as new outbox rows, with the bytes of their events. Only position, headers
-- and age are new.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, payload_size, created_at)
SELECT d.shard, k.position, d.event_id, k.previous_position, d.subject_type, d.subject_id,
  d.subject_version, d.topic, k.headers::json, b.event_data::text, b.event_size,
  clock_timestamp()
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(died_ats)s::text::timestamptz[]),
    (SELECT %(positions)s::text::bigint[]), (SELECT %(previous_positions)s::text::bigint[]),
    (SELECT %(headers)s::text::text[]))
  AS k(event_id, died_at, position, previous_position, headers)
JOIN {schema}.dead_letters d ON d.event_id = k.event_id AND d.died_at = k.died_at
JOIN {schema}.business_events b ON b.id = d.event_id
