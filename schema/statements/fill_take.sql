-- Become the worker of a fill, unless another one has shown itself lately.
UPDATE {schema}.outbox_fills SET epoch = epoch + 1,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
WHERE target = %(target)s AND state = 'filling' AND expires_at <= clock_timestamp()
RETURNING epoch, source, event_id, events, messages, bare
