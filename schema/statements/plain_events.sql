-- The plain form of a write, 2 of 5: the events. The row of an entity holds its version
-- and position after the whole batch; each touch is numbered backward from there. A
-- version that was not expected makes a cast fail, which aborts the transaction. An event
-- without a date gets now(), the start of its transaction.
INSERT INTO {schema}.business_events (id, event_name, event_type, created_date, saved_date,
  event_data, event_size, fingerprint, write_id, subject_type, subject_id, subject_version, shard,
  position, previous_position, topic, touches, headers)
WITH listed AS (
  SELECT t.event,
    string_agg(',' || t.touch || (e.version - t.back) || '}}', '' ORDER BY t.ordinal) AS touches
  FROM unnest(%(further_ordinal)s::text::int[], %(further_event)s::text::int[],
      %(further_type)s::text::text[], %(further_id)s::text::text[],
      %(further_back)s::text::bigint[], %(further_touch)s::text::text[])
    AS t(ordinal, event, entity_type, entity_id, back, touch)
  LEFT JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
  GROUP BY t.event
)
SELECT t.id, t.event_name, t.event_type, coalesce(t.created_date, now()), clock_timestamp(),
  t.data::json, octet_length(t.data), t.fingerprint, t.write_id, t.subject_type, t.subject_id,
  CASE WHEN t.expected IS NULL OR e.version - t.back - 1 = t.expected
    THEN e.version - t.back
    ELSE ('stale ' || t.id || ' ' || e.version - t.back - 1)::bigint END,
  e.shard, e.position - t.position_back,
  CASE WHEN t.first_as_subject THEN e.previous_position ELSE e.position - t.position_back - 1 END,
  t.topic,
  ('[' || t.touch || (e.version - t.back) || '}}' || coalesce(listed.touches, '') || ']')::json,
  t.own_headers::json
FROM unnest(%(subject_ordinal)s::text::int[], %(id)s::text::uuid[], %(name)s::text::text[],
    %(type)s::text::text[], %(created_date)s::text::timestamptz[], %(data)s::text::text[],
    %(fingerprint)s::text::bytea[], %(write_id)s::text::uuid[], %(topic)s::text::text[],
    %(subject_type)s::text::text[], %(subject_id)s::text::text[],
    %(subject_back)s::text::bigint[], %(position_back)s::text::bigint[],
    %(subject_touch)s::text::text[], %(expected)s::text::bigint[],
    %(own_headers)s::text::text[], %(first_as_subject)s::text::bool[])
  AS t(ordinal, id, event_name, event_type, created_date, data, fingerprint, write_id, topic,
    subject_type, subject_id, back, position_back, touch, expected, own_headers, first_as_subject)
LEFT JOIN {schema}.entities AS e ON e.entity_type = t.subject_type AND e.entity_id = t.subject_id
LEFT JOIN listed ON listed.event = t.ordinal
