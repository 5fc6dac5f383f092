-- Give back the lease of a job. has_forgotten: a forget job is complete.
UPDATE {schema}.outbox_jobs
SET owner = NULL,
  forgotten_at = CASE WHEN %(has_forgotten)s::bool THEN clock_timestamp() ELSE forgotten_at END
WHERE name = 'life' AND owner = %(owner)s AND epoch = %(epoch)s
