-- The lease of the jobs that change stored events, archive, erase and forget: one row, so that they
-- exclude each other. store: names this outbox in its archive folders. verb: of the last job; it
-- runs while owner is not NULL and expires_at is not over. epoch rises with every job.
-- pending: the file, in pending_place, that a job writes or removes, and that no row names. archived, erased, forgotten: events
-- so far. archived_at: when the last archive job was complete; oldest_at: the saved date of the
-- oldest event whose bytes it left here; forgotten_before: events before it may be forgotten.
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
