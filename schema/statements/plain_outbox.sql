-- The plain form of a write, 4 of 5: one message per event and target. The payload is
-- read from the event's row: json keeps the text byte for byte, so it need not be sent twice. A
-- message of a model only names the event.
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, payload_size, created_at)
WITH listed AS (
  SELECT t.event,
    string_agg(',' || t.key || '@' || (e.version - t.back), '' ORDER BY t.ordinal) AS entities
  FROM unnest(%(further_ordinal)s::text::int[], %(further_event)s::text::int[],
      %(further_type)s::text::text[], %(further_id)s::text::text[],
      %(further_back)s::text::bigint[], %(further_key)s::text::text[])
    AS t(ordinal, event, entity_type, entity_id, back, key)
  LEFT JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
  GROUP BY t.event
)
SELECT target.first_shard + b.shard, b.position, b.id, b.previous_position,
  b.subject_type, b.subject_id, b.subject_version, b.topic,
  (t.headers || t.key || '@' || b.subject_version || coalesce(listed.entities, '')
    || CASE WHEN t.created_date IS NULL
      THEN '","time":"' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
      ELSE '' END || '"}}')::json,
  CASE WHEN target.kind <> 'model' THEN b.event_data::text END, b.event_size, clock_timestamp()
FROM unnest(%(subject_ordinal)s::text::int[], %(id)s::text::uuid[], %(headers)s::text::text[],
    %(created_date)s::text::timestamptz[], %(subject_key)s::text::text[])
  AS t(ordinal, id, headers, created_date, key)
LEFT JOIN {schema}.business_events AS b ON b.id = t.id
LEFT JOIN listed ON listed.event = t.ordinal
JOIN {schema}.outbox_targets AS target ON target.state <> 'dropped'
  AND (target.types IS NULL OR b.subject_type = ANY(target.types::text[]))
