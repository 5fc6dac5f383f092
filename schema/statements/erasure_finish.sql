-- Note that all is erased of an entity. new_id: its pseudonym, which takes the place of the id in
-- earlier erasures too; without one, the id.
UPDATE {schema}.outbox_erasures
SET finished_at = coalesce(finished_at, clock_timestamp()), entity_id = %(new_id)s
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND (finished_at IS NULL OR entity_id <> %(new_id)s)
