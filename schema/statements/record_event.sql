-- Return one stored event, without its payload.
SELECT id, event_name, event_type, subject_type, subject_id, subject_version, topic, shard, position,
  created_date, saved_date, event_size AS bytes, headers::text AS headers,
  touches::text AS touches
FROM {schema}.business_events WHERE id = %(event_id)s
