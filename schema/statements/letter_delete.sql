-- Delete exactly these dead letters, by the whole key.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.dead_letters d
USING unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(died_ats)s::text::timestamptz[]))
  AS k(event_id, died_at)
WHERE d.event_id = k.event_id AND d.died_at = k.died_at
