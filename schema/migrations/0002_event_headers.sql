-- One row for each entity that an event touches. The events of an entity, in the order of its
-- versions, are one range of keys.
-- - header_size: bytes.
CREATE TABLE IF NOT EXISTS {schema}.event_headers (
  entity_type varchar(64) NOT NULL,
  entity_id varchar(128) NOT NULL,
  entity_version bigint NOT NULL,
  event_id uuid NOT NULL,
  event_name varchar(255) NOT NULL,
  event_type varchar(255) NOT NULL,
  created_date timestamptz,
  saved_date timestamptz NOT NULL,
  header_data json NOT NULL,
  header_size int NOT NULL,
  PRIMARY KEY (entity_type, entity_id, entity_version)
)
