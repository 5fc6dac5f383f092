-- Every event, byte for byte as it was received. One row is enough to rebuild its receipt or its
-- message.
-- - event_data: the bytes.
-- - event_size: the number of bytes received.
-- - erased_at: when content of the event was erased. NULL if it never was.
-- - position, previous_position: those of its message.
-- - fingerprint: SHA-256 of the event without its savedDate.
-- - write_id: random, one per call of a writer. It tells a caller's own event from somebody else's.
-- - headers: what the event adds to the headers of its message, a JSON object of texts. NULL if
--   nothing.
CREATE TABLE IF NOT EXISTS {schema}.business_events (
  id uuid PRIMARY KEY,
  event_name varchar(255) NOT NULL,
  event_type varchar(255) NOT NULL,
  created_date timestamptz,
  saved_date timestamptz NOT NULL,
  event_data json NOT NULL,
  event_size int NOT NULL,
  fingerprint bytea NOT NULL,
  write_id uuid NOT NULL,
  subject_type varchar(64) NOT NULL,
  subject_id varchar(128) NOT NULL,
  subject_version bigint NOT NULL,
  shard int NOT NULL,
  position bigint NOT NULL,
  previous_position bigint NOT NULL,
  topic varchar(255) NOT NULL,
  touches json NOT NULL,
  headers json,
  erased_at timestamptz
)
