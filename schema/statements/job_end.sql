-- Give back the lease of a job. is_archived: an archive job is complete, and oldest_at is the
-- saved date of the oldest event whose bytes it left.
UPDATE {schema}.outbox_jobs
SET owner = NULL,
  archived_at = CASE WHEN %(is_archived)s::bool THEN clock_timestamp() ELSE archived_at END,
  oldest_at = CASE WHEN %(is_archived)s::bool THEN %(oldest_at)s::timestamptz ELSE oldest_at END
WHERE name = 'life' AND owner = %(owner)s AND epoch = %(epoch)s
