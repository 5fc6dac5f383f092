-- Return whether an unfinished erasure of another id gives its entity this one. The table has few rows.
SELECT count(*) > 0
FROM {schema}.outbox_erasures
WHERE id = %(id)s::uuid AND entity_type = %(entity_type)s AND entity_id <> %(entity_id)s
  AND finished_at IS NULL
