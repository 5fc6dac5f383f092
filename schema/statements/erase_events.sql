-- Return events whose bytes are here, to find what is to be erased in them.
SELECT id, event_data::text AS data, encode(fingerprint, 'hex') AS fingerprint,
  headers::text AS headers, touches::text AS touches, erased_at IS NOT NULL AS is_erased
FROM {schema}.business_events
WHERE id = ANY(%(event_ids)s::text::uuid[]) AND event_data IS NOT NULL
ORDER BY id
