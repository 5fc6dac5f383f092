-- The lease of the jobs that change stored events: archive, erase and forget. There is one row, so
-- that they exclude each other.
-- - store: identifies this outbox in its archive folders.
-- - epoch: rises with every job.
-- - verb: of the last job. It runs while owner is not NULL and expires_at is not over.
-- - pending, pending_place: the file that a job writes or removes, and that no other row names.
-- - archived, erased, forgotten: the number of events so far.
-- - archived_at: when an archive job last completed.
-- - oldest_at: the saved date of the oldest event whose bytes that job left here.
-- - forgotten_before: events before this date may have been forgotten.
CREATE TABLE IF NOT EXISTS {schema}.outbox_jobs (
  name varchar(64) PRIMARY KEY,
  store uuid NOT NULL,
  owner varchar(128),
  epoch bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  verb varchar(16) NOT NULL,
  pending_place varchar(1024),
  pending varchar(255),
  archived bigint NOT NULL,
  erased bigint NOT NULL,
  forgotten bigint NOT NULL,
  archived_at timestamptz,
  oldest_at timestamptz,
  forgotten_before timestamptz
)
