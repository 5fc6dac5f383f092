-- Note that all is erased that some erasures of an entity were to erase.
UPDATE {schema}.outbox_erasures
SET finished_at = clock_timestamp()
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND event_id = ANY(%(done)s::text::uuid[]) AND finished_at IS NULL
