-- Return what the jobs that change stored events have done, and how long ago a forget job was last
-- complete. running: the verb of the job that runs.
SELECT erased, forgotten, forgotten_before,
  extract(epoch FROM clock_timestamp() - forgotten_at)::float8 AS forgotten_seconds,
  CASE WHEN owner IS NOT NULL AND expires_at > clock_timestamp() THEN verb END AS running
FROM {schema}.outbox_jobs WHERE name = 'life'
