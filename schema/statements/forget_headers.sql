-- Delete the touches of forgotten events.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.event_headers h
USING unnest(
    (SELECT %(types)s::text::text[]), (SELECT %(ids)s::text::text[]),
    (SELECT %(versions)s::text::bigint[]), (SELECT %(event_ids)s::text::uuid[]))
  AS k(entity_type, entity_id, version, event_id)
WHERE h.entity_type = k.entity_type AND h.entity_id = k.entity_id
  AND h.entity_version = k.version AND h.event_id = k.event_id
