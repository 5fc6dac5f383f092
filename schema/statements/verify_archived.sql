-- Return for the events of an archive file what their rows say.
SELECT id, encode(fingerprint, 'hex') AS fingerprint, archive, touches::text AS touches
FROM {schema}.business_events WHERE id = ANY(%(event_ids)s::text::uuid[])
