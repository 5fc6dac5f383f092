-- Return for the events of an archive file what their rows say.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id, encode(fingerprint, 'hex') AS fingerprint, archive, touches::text AS touches
FROM {schema}.business_events WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
