-- Return one stored event, without its payload.
SELECT b.id, b.event_name AS name, b.event_type AS type, b.subject_type, b.subject_id, b.subject_version, b.topic,
  b.shard, b.position, b.created_date, b.saved_date, b.event_size AS payload_bytes,
  b.headers::text AS headers, b.touches::text AS touches,
  b.write_id, b.erased_at
FROM {schema}.business_events b
WHERE b.id = %(event_id)s
