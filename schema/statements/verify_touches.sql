-- Return for touches of stored events their headers and their entities. state: of an entity
-- whose last event this is.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
SELECT h.event_id, h.header_data::text AS header, h.header_size, e.shard, e.version,
  CASE WHEN e.event_id = t.event_id THEN e.entity_data::text END AS state
FROM unnest(
    (SELECT %(numbers)s::text::int[]), (SELECT %(entity_types)s::text::text[]),
    (SELECT %(entity_ids)s::text::text[]), (SELECT %(versions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]))
  AS t(number, entity_type, entity_id, version, event_id)
LEFT JOIN {schema}.event_headers h ON h.entity_type = t.entity_type
  AND h.entity_id = t.entity_id AND h.entity_version = t.version
LEFT JOIN {schema}.entities e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
ORDER BY t.number
