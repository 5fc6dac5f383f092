-- The files that have the bytes of archived events.
-- - place: the folder or s3:// prefix that the file was written to.
-- - events, first_id, last_id, oldest_at, newest_at: of the events in it, by their ids and saved
--   dates.
-- - file_size, sha256: of the file. The size is in bytes.
-- - content_sha256: of the lines in it. Both hashes are in hex.
-- - rewritten_at: NULL if the file was never rewritten. A rewritten file has a new name and keeps its
--   number.
CREATE TABLE IF NOT EXISTS {schema}.outbox_archives (
  number int PRIMARY KEY,
  place varchar(1024) NOT NULL,
  file varchar(255) NOT NULL,
  events int NOT NULL,
  first_id uuid NOT NULL,
  last_id uuid NOT NULL,
  oldest_at timestamptz NOT NULL,
  newest_at timestamptz NOT NULL,
  file_size bigint NOT NULL,
  sha256 varchar(64) NOT NULL,
  content_sha256 varchar(64) NOT NULL,
  made_at timestamptz NOT NULL,
  rewritten_at timestamptz
)
