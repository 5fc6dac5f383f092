-- Return the dead letters of events. died_at: as text, since it may be a time that no client can
-- load. is_other: the size is not that of the event. The array is in a subquery: its length would
-- make PostgreSQL read a table of up to some 100,000 rows as a whole, for each call.
SELECT d.event_id, d.died_at::text AS died_at, d.headers::text AS headers, d.error,
  d.payload_size <> b.event_size AS is_other
FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS k(event_id)
JOIN {schema}.dead_letters d ON d.event_id = k.event_id
JOIN {schema}.business_events b ON b.id = k.event_id
ORDER BY d.event_id, d.died_at
