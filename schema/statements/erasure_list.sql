-- Return the erasures of an entity, the latest first.
SELECT erased_at::text AS erased_at, event_id, version, finished_at IS NOT NULL AS is_finished
FROM {schema}.outbox_erasures
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
ORDER BY erased_at DESC
