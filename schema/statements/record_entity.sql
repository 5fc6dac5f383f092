-- Return the current state of an entity. Times are limited to dates that a client can
-- represent.
SELECT version, shard, entity_data::text, event_id,
  greatest('0001-01-02 00:00+00', least('9999-12-30 00:00+00', created_at)) AS created_at,
  greatest('0001-01-02 00:00+00', least('9999-12-30 00:00+00', updated_at)) AS updated_at
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
