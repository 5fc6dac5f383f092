-- The plain form of a write, 5 of 5: return the rows that event_write_batch.sql returns.
-- An incomplete write must never commit: a failing cast aborts the transaction.
WITH touch AS (
  SELECT t.ordinal, e.version - t.back AS version, e.position - t.subject_back AS position,
    t.subject
  FROM unnest(%(ordinal)s::text::bigint[], %(touch_type)s::text::text[],
      %(touch_entity)s::text::text[], %(back)s::text::bigint[], %(subject)s::text::bool[],
      %(subject_back)s::text::bigint[])
    AS t(ordinal, entity_type, entity_id, back, subject, subject_back)
  JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
), complete AS (
  SELECT CASE WHEN events = %(expected_events)s AND touches = %(expected_touches)s THEN 1
      ELSE ('short write: ' || events || ' events, ' || touches || ' touches')::int END AS ok
  FROM (SELECT
      (SELECT count(*) FROM unnest(%(id)s::text::uuid[], %(write_id)s::text::uuid[])
          AS t(id, write_id)
        JOIN {schema}.business_events AS b ON b.id = t.id AND b.write_id = t.write_id) AS events,
      (SELECT count(*) FROM touch) AS touches) AS found
)
SELECT complete.ok, touch.ordinal, touch.version, touch.position, touch.subject
FROM complete LEFT JOIN touch ON true
ORDER BY touch.ordinal
