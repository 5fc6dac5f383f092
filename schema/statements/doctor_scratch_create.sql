-- Create the scratch table of the probes, with the key of the outbox. Fails if it exists.
CREATE TABLE {schema}.doctor_scratch (
  shard int NOT NULL,
  position bigint NOT NULL,
  event_id uuid NOT NULL,
  flag int,
  doc json,
  PRIMARY KEY (shard, position, event_id)
)
