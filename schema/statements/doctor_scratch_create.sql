-- The scratch table of the probes, with the outbox's key; it fails if it is there already.
CREATE TABLE {schema}.doctor_scratch (
  shard int NOT NULL,
  position bigint NOT NULL,
  event_id uuid NOT NULL,
  flag int,
  doc json,
  PRIMARY KEY (shard, position, event_id)
)
