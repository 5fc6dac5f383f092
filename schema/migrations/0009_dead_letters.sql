-- Messages given up: the outbox row without its payload, and why. The payload is the event's:
-- business_events has it. error_pattern: the error without what differs from message to message,
-- so that errors of one kind can be counted. The second key reads them newest first.
-- An event dies once per target and replay. Two deaths in one microsecond collide, and the later
-- transaction runs again.
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
