-- The plain form of a write, 4 of 5: one message per event. The payload is read from the
-- event's row: json keeps the text byte for byte, so it need not be sent twice.
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, created_at)
WITH touch AS (
  SELECT t.ordinal, t.event_id, t.subject, t.key || '@' || (e.version - t.back) AS listed,
    CASE WHEN t.first_as_subject THEN e.previous_position
      ELSE e.position - t.subject_back - 1 END AS previous_position
  FROM unnest(%(ordinal)s::text::bigint[], %(touch_event)s::text::uuid[],
      %(touch_type)s::text::text[], %(touch_entity)s::text::text[], %(back)s::text::bigint[],
      %(subject)s::text::bool[], %(subject_back)s::text::bigint[],
      %(first_as_subject)s::text::bool[], %(key)s::text::text[])
    AS t(ordinal, event_id, entity_type, entity_id, back, subject, subject_back,
      first_as_subject, key)
  JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
)
SELECT b.shard, b.position, b.id, subject.previous_position, b.subject_type, b.subject_id,
  b.subject_version, b.topic, (t.headers || listed.entities || CASE WHEN t.created_date IS NULL
      THEN '","time":"' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
      ELSE '' END || '"}}')::json,
  b.event_data::text, clock_timestamp()
FROM unnest(%(id)s::text::uuid[], %(headers)s::text::text[],
    %(created_date)s::text::timestamptz[]) AS t(id, headers, created_date)
JOIN {schema}.business_events AS b ON b.id = t.id
JOIN touch AS subject ON subject.event_id = t.id AND subject.subject
JOIN (SELECT event_id, string_agg(listed, ',' ORDER BY ordinal) AS entities
  FROM touch GROUP BY event_id) AS listed ON listed.event_id = t.id
