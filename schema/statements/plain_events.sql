-- The plain form of a write, 2 of 5: the events. The row of an entity holds its version
-- and position after the whole batch; each touch is numbered backward from there. A
-- version that was not expected makes a cast fail, which aborts the transaction. An event
-- without a date gets now(), the start of its transaction.
INSERT INTO {schema}.business_events (id, event_name, event_type, created_date, saved_date,
  event_data, fingerprint, write_id, subject_type, subject_id, subject_version, shard,
  position, topic, touches)
WITH touch AS (
  SELECT t.ordinal, t.event_id, t.subject, t.entity_type, t.entity_id, e.shard,
    CASE WHEN t.expected IS NULL OR e.version - t.back - 1 = t.expected
      THEN e.version - t.back
      ELSE ('stale ' || t.event_id || ' ' || e.version - t.back - 1)::bigint END AS version,
    e.position - t.subject_back AS position,
    t.touch || (e.version - t.back) || '}}' AS touched
  FROM unnest(%(ordinal)s::text::bigint[], %(touch_event)s::text::uuid[],
      %(touch_type)s::text::text[], %(touch_entity)s::text::text[], %(back)s::text::bigint[],
      %(subject)s::text::bool[], %(subject_back)s::text::bigint[], %(touch)s::text::text[],
      %(expected)s::text::bigint[])
    AS t(ordinal, event_id, entity_type, entity_id, back, subject, subject_back, touch, expected)
  JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
)
SELECT t.id, t.event_name, t.event_type, coalesce(t.created_date, now()), clock_timestamp(), t.data::json,
  t.fingerprint, t.write_id, subject.entity_type, subject.entity_id, subject.version,
  subject.shard, subject.position, t.topic, ('[' || touched.touches || ']')::json
FROM unnest(%(id)s::text::uuid[], %(name)s::text::text[], %(type)s::text::text[],
    %(created_date)s::text::timestamptz[], %(data)s::text::text[],
    %(fingerprint)s::text::bytea[], %(write_id)s::text::uuid[], %(topic)s::text::text[])
  AS t(id, event_name, event_type, created_date, data, fingerprint, write_id, topic)
JOIN touch AS subject ON subject.event_id = t.id AND subject.subject
JOIN (SELECT event_id, string_agg(touched, ',' ORDER BY ordinal) AS touches
  FROM touch GROUP BY event_id) AS touched ON touched.event_id = t.id
