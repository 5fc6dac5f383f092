-- Every event, byte for byte as received. A receipt and a replayed message can be rebuilt from
-- one row. event_data: NULL: the bytes are in a file, which archive numbers (outbox_archives).
-- archive: NULL: the bytes are here. erased_at: when content of the event was erased; NULL: never.
-- event_size: of the bytes as received. position, previous_position: those of its message. fingerprint: SHA-256 of the event, savedDate left out.
-- write_id: random, one per call of write; tells "mine" from "somebody else's".
-- headers: those that the event gives its message, as a JSON object of texts; NULL: none.
CREATE TABLE IF NOT EXISTS {schema}.business_events (
  id uuid PRIMARY KEY,
  event_name varchar(255) NOT NULL,
  event_type varchar(255) NOT NULL,
  created_date timestamptz,
  saved_date timestamptz NOT NULL,
  event_data json,
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
  archive int,
  erased_at timestamptz
)
