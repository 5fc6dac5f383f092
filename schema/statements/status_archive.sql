-- Return what the jobs that change stored events have done, and how long ago the last archive job
-- was complete. oldest_seconds: the age of the oldest event that it left. running: the verb of the job that runs.
SELECT archived, erased, forgotten,
  extract(epoch FROM clock_timestamp() - archived_at)::float8 AS complete_seconds, oldest_at,
  extract(epoch FROM clock_timestamp() - oldest_at)::float8 AS oldest_seconds,
  CASE WHEN owner IS NOT NULL AND expires_at > clock_timestamp() THEN verb END AS running
FROM {schema}.outbox_jobs WHERE name = 'life'
