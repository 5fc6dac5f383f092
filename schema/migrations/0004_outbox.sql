-- The messages that wait to be sent. Rows are inserted and deleted, never updated. The shard leads
-- the key, so that inserts spread over many key ranges.
-- - payload: the event, byte for byte. NULL if outbox_payloads has it.
-- - payload_size: bytes.
CREATE TABLE IF NOT EXISTS {schema}.outbox (
  shard int NOT NULL,
  position bigint NOT NULL,
  event_id uuid NOT NULL,
  previous_position bigint NOT NULL,
  subject_type varchar(64) NOT NULL,
  subject_id varchar(128) NOT NULL,
  subject_version bigint NOT NULL,
  topic varchar(255) NOT NULL,
  headers json NOT NULL,
  payload text,
  payload_size int NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (shard, position, event_id)
)
