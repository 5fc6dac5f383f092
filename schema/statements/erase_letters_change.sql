-- Put other headers and another text in the place of those of dead letters.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.dead_letters d
SET headers = k.headers::json, error = %(error)s, error_pattern = %(error)s, payload_size = b.event_size
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(died_at)s::text::timestamptz[]),
    (SELECT %(headers)s::text::text[]))
  AS k(event_id, died_at, headers)
JOIN {schema}.business_events b ON b.id = k.event_id
WHERE d.event_id = k.event_id AND d.died_at = k.died_at
