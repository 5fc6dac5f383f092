-- Return events, to find what is to be erased in them.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id, event_data::text AS data, encode(fingerprint, 'hex') AS fingerprint,
  headers::text AS headers, touches::text AS touches, erased_at IS NOT NULL AS is_erased
FROM {schema}.business_events
WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
ORDER BY id
