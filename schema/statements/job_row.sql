-- Return the lease of the jobs that change stored events, and what they have done.
SELECT store, owner, verb, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left,
  archived, erased, forgotten, archived_at, oldest_at, forgotten_before
FROM {schema}.outbox_jobs WHERE name = 'life'
