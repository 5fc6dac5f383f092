-- The lease of the jobs that change stored events: erase and forget. There is one row, so that they
-- exclude each other.
-- - epoch: rises with every job.
-- - verb: of the last job. It runs while owner is not NULL and expires_at is not over.
-- - erased, forgotten: the number of events so far.
-- - forgotten_at: when a forget job last completed.
-- - forgotten_before: events before this date may have been forgotten.
CREATE TABLE IF NOT EXISTS {schema}.outbox_jobs (
  name varchar(64) PRIMARY KEY,
  owner varchar(128),
  epoch bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  verb varchar(16) NOT NULL,
  erased bigint NOT NULL,
  forgotten bigint NOT NULL,
  forgotten_at timestamptz,
  forgotten_before timestamptz
)
