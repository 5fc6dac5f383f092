-- Note that all is erased that some erasures of an entity were to erase. new_id: its pseudonym,
-- which takes the place of the id in all erasures up to this version; without one, the id.
UPDATE {schema}.outbox_erasures
SET entity_id = %(new_id)s,
  finished_at = CASE WHEN id = ANY(%(done)s::text::uuid[]) THEN clock_timestamp()
    ELSE finished_at END
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND (id = ANY(%(done)s::text::uuid[]) OR entity_id <> %(new_id)s AND version <= %(version)s)
