-- The current state of each entity.
-- - version: rises by one with each event that touches the entity, without gaps.
-- - shard: given with the first event and kept, so the number of shards can grow.
-- - position: of the last event whose subject it is, in microseconds.
-- - previous_position: the same before the last transaction that moved it. 0 if there was none.
CREATE TABLE IF NOT EXISTS {schema}.entities (
  entity_type varchar(64) NOT NULL,
  entity_id varchar(128) NOT NULL,
  version bigint NOT NULL,
  shard int NOT NULL,
  position bigint NOT NULL,
  previous_position bigint NOT NULL,
  entity_data json NOT NULL,
  event_id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (entity_type, entity_id)
)
