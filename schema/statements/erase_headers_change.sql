-- Put other data in the place of those of headers.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.event_headers h
SET header_data = k.data::json, header_size = octet_length(k.data)
FROM unnest(
    (SELECT %(types)s::text::text[]), (SELECT %(ids)s::text::text[]),
    (SELECT %(versions)s::text::bigint[]), (SELECT %(event_ids)s::text::uuid[]),
    (SELECT %(data)s::text::text[]))
  AS k(entity_type, entity_id, version, event_id, data)
WHERE h.entity_type = k.entity_type AND h.entity_id = k.entity_id
  AND h.entity_version = k.version AND h.event_id = k.event_id
