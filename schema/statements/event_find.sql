-- Return for stored events the id of their write, and the contents of their receipts. is_erased:
-- content of the event was erased, so its fingerprint is no longer that of the write.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id, write_id, fingerprint, erased_at IS NOT NULL AS is_erased, position, touches::text AS touches
FROM {schema}.business_events WHERE id = ANY((SELECT %(ids)s::text::uuid[])::uuid[])
