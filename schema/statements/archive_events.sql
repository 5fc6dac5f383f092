-- Return the events that are to be archived, with their bytes, in the order of their ids.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id, saved_date, encode(fingerprint, 'hex') AS fingerprint, event_data::text AS event,
  headers::text AS headers, touches::text AS touches
FROM {schema}.business_events
WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[]) AND archive IS NULL AND event_data IS NOT NULL
ORDER BY id
