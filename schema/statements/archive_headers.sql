-- Return the stored header of each touch, by the number of the touch.
SELECT k.n, h.header_data::text AS data
FROM unnest(%(types)s::text::text[], %(ids)s::text::text[], %(versions)s::text::bigint[],
    %(event_ids)s::text::uuid[], %(numbers)s::text::int[])
  AS k(entity_type, entity_id, version, event_id, n)
JOIN {schema}.event_headers h ON h.entity_type = k.entity_type AND h.entity_id = k.entity_id
  AND h.entity_version = k.version AND h.event_id = k.event_id
