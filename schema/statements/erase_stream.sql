-- Return a page of an entity's events in the order of its versions, without their bytes.
SELECT h.entity_version, h.event_id, b.event_size
FROM {schema}.event_headers h
JOIN {schema}.business_events b ON b.id = h.event_id
WHERE h.entity_type = %(entity_type)s AND h.entity_id = %(entity_id)s
  AND h.entity_version > %(after)s AND h.entity_version < %(before)s
ORDER BY h.entity_version
LIMIT %(rows)s
