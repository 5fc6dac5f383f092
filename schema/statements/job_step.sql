-- Count what a job does, in the transaction that does it, and renew its lease. It changes no row
-- if another job has begun since.
UPDATE {schema}.outbox_jobs
SET expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second',
  erased = erased + %(erased)s::bigint, forgotten = forgotten + %(forgotten)s::bigint,
  forgotten_before = greatest(forgotten_before, %(forgotten_before)s::timestamptz)
WHERE name = 'life' AND owner = %(owner)s AND epoch = %(epoch)s
