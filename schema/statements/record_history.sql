-- Return the events that touched an entity, the latest version first, from one key range:
-- versions have no gaps. is_subject: the entity is the subject of the event.
SELECT h.entity_version AS version, h.event_id, h.event_name AS name, h.event_type AS type,
  h.saved_date,
  b.topic, b.subject_type = h.entity_type AND b.subject_id = h.entity_id AS is_subject
FROM {schema}.event_headers h
JOIN {schema}.business_events b ON b.id = h.event_id
WHERE h.entity_type = %(entity_type)s AND h.entity_id = %(entity_id)s
  AND h.entity_version > %(after)s AND h.entity_version <= %(last)s
ORDER BY h.entity_version DESC
