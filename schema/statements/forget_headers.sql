-- Delete the touches of forgotten events.
DELETE FROM {schema}.event_headers h
USING unnest(%(types)s::text::text[], %(ids)s::text::text[], %(versions)s::text::bigint[],
    %(event_ids)s::text::uuid[])
  AS k(entity_type, entity_id, version, event_id)
WHERE h.entity_type = k.entity_type AND h.entity_id = k.entity_id
  AND h.entity_version = k.version AND h.event_id = k.event_id
