-- Messages that were given up, each with its last error. A row is the outbox row without its
-- payload, which business_events has. The second key reads the newest first. An event dies once per
-- target and replay. If two deaths fall into one microsecond, the later transaction fails and runs
-- again.
-- - error_pattern: the error without what differs between messages, so that errors of one kind can
--   be counted.
CREATE TABLE IF NOT EXISTS {schema}.dead_letters (
  event_id uuid NOT NULL,
  died_at timestamptz NOT NULL,
  shard int NOT NULL,
  position bigint NOT NULL,
  previous_position bigint NOT NULL,
  subject_type varchar(64) NOT NULL,
  subject_id varchar(128) NOT NULL,
  subject_version bigint NOT NULL,
  topic varchar(255) NOT NULL,
  headers json NOT NULL,
  payload_size int NOT NULL,
  created_at timestamptz NOT NULL,
  error text NOT NULL,
  attempts int NOT NULL,
  replays int NOT NULL,
  error_pattern text,
  PRIMARY KEY (event_id, died_at),
  UNIQUE (died_at, event_id)
)
