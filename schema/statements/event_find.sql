-- What stored events say of their writes: whose they were, and their receipts.
SELECT id, write_id, fingerprint, position, touches::text
FROM {schema}.business_events WHERE id = ANY(%(ids)s::text::uuid[])
