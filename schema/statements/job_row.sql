-- Return the lease of the jobs that change stored events, and what they have done.
SELECT owner, verb, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left
FROM {schema}.outbox_jobs WHERE name = 'life'
