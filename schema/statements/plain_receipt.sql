-- The plain form of a write, 5 of 5: return the rows that event_write_batch.sql returns.
-- An incomplete write must never commit: a failing cast aborts the transaction.
WITH touch AS (
  SELECT t.ordinal, b.subject_version AS version, b.position, true AS subject
  FROM unnest(%(subject_ordinal)s::text::int[], %(id)s::text::uuid[], %(write_id)s::text::uuid[])
    AS t(ordinal, id, write_id)
  LEFT JOIN {schema}.business_events AS b ON b.id = t.id AND b.write_id = t.write_id
  UNION ALL
  SELECT t.ordinal, e.version - t.back, NULL, false
  FROM unnest(%(further_ordinal)s::text::int[], %(further_type)s::text::text[],
      %(further_id)s::text::text[], %(further_back)s::text::bigint[])
    AS t(ordinal, entity_type, entity_id, back)
  LEFT JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
), complete AS (
  SELECT CASE WHEN events = %(expected_events)s::text::bigint
        AND touches = %(expected_touches)s::text::bigint THEN 1
      ELSE ('short write: ' || events || ' events, ' || touches || ' touches')::int END AS ok
  FROM (SELECT count(version) FILTER (WHERE subject) AS events, count(version) AS touches
    FROM touch) AS found
)
SELECT complete.ok, touch.ordinal, touch.version, touch.position, touch.subject,
  (SELECT count(*) FROM {schema}.outbox_targets WHERE state <> 'dropped') AS targets,
  (SELECT count(*) FROM {schema}.outbox_targets WHERE state <> 'dropped' AND kind <> 'model')
    AS copies
FROM complete LEFT JOIN touch ON true
ORDER BY touch.ordinal
