-- Become the worker of a fill, unless another one has shown itself lately. forgotten: nothing is
-- forgotten while a target fills, so each worker finds the same.
UPDATE {schema}.outbox_fills SET epoch = epoch + 1,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second',
  forgotten = (SELECT coalesce(sum(j.forgotten), 0)::bigint FROM {schema}.outbox_jobs j)
WHERE target = %(target)s AND state = 'filling' AND expires_at <= clock_timestamp()
RETURNING epoch, source, event_id, events, messages, forgotten
