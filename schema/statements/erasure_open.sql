-- Return the erasures of an entity that are not finished, the latest first.
SELECT erased_at::text AS erased_at, id, event_id, version
FROM {schema}.outbox_erasures
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND finished_at IS NULL
ORDER BY erased_at DESC
