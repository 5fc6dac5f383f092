-- Put other data in the place of those of headers.
UPDATE {schema}.event_headers h
SET header_data = k.data::json, header_size = octet_length(k.data)
FROM unnest(%(types)s::text::text[], %(ids)s::text::text[], %(versions)s::text::bigint[],
    %(event_ids)s::text::uuid[], %(data)s::text::text[])
  AS k(entity_type, entity_id, version, event_id, data)
WHERE h.entity_type = k.entity_type AND h.entity_id = k.entity_id
  AND h.entity_version = k.version AND h.event_id = k.event_id
