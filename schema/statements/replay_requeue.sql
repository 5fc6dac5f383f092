-- Insert stored events as new outbox rows of a target. json keeps the text, so the payload is equal
-- to the event byte for byte.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, payload_size, created_at)
SELECT g.first_shard + b.shard, k.position, b.id, k.previous_position, b.subject_type, b.subject_id,
  b.subject_version, b.topic, k.headers::json, b.event_data::text, b.event_size, clock_timestamp()
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(previous_positions)s::text::bigint[]), (SELECT %(headers)s::text::text[]))
  AS k(event_id, position, previous_position, headers)
JOIN {schema}.business_events b ON b.id = k.event_id
JOIN {schema}.outbox_targets g ON g.name = %(target)s AND g.state = 'running'
