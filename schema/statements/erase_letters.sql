-- Return the dead letters of events. died_at: as text, since it may be a time that no client can
-- load. is_other: the size is not that of the event.
SELECT d.event_id, d.died_at::text AS died_at, d.headers::text AS headers, d.error,
  d.payload_size <> b.event_size AS is_other
FROM {schema}.dead_letters d
JOIN {schema}.business_events b ON b.id = d.event_id
WHERE d.event_id = ANY(%(event_ids)s::text::uuid[])
ORDER BY d.event_id, d.died_at
