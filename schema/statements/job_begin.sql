-- Take the lease of the jobs that change stored events, unless another job has it. Of two at the
-- same time, on PostgreSQL the second sees the first's row; on DSQL one of them fails.
INSERT INTO {schema}.outbox_jobs AS j
  (name, owner, epoch, expires_at, verb, erased, forgotten)
VALUES ('life', %(owner)s, 1,
  clock_timestamp() + %(lease)s::float8 * interval '1 second', %(verb)s, 0, 0)
ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, epoch = j.epoch + 1,
  expires_at = EXCLUDED.expires_at, verb = EXCLUDED.verb
WHERE j.owner IS NULL OR j.expires_at < clock_timestamp()
RETURNING epoch
