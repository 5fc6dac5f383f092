-- Return for stored events the id of their write, and the contents of their receipts.
SELECT id, write_id, fingerprint, position, touches::text AS touches
FROM {schema}.business_events WHERE id = ANY(%(ids)s::text::uuid[])
