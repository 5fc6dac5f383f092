-- Record failures of messages. The waits outlast a restart of the publisher.
-- seconds infinity: blocked until an operator acts.
-- A statement whose connection was lost may run late, after that of a later attempt. It must
-- neither give attempts back nor release a blocked message, so the greater values stay.
INSERT INTO {schema}.outbox_failures AS f
  (shard, position, event_id, attempts, last_error, retry_at)
SELECT k.shard, k.position, k.event_id, k.attempts, k.error,
  CASE WHEN k.seconds = 'infinity' THEN 'infinity'
    ELSE clock_timestamp() + k.seconds * interval '1 second' END
FROM unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[],
    %(attempts)s::text::int[], %(errors)s::text::text[], %(seconds)s::text::float8[])
  AS k(shard, position, event_id, attempts, error, seconds)
ON CONFLICT (shard, position, event_id) DO UPDATE SET
  attempts = GREATEST(f.attempts, EXCLUDED.attempts), last_error = EXCLUDED.last_error,
  retry_at = GREATEST(f.retry_at, EXCLUDED.retry_at)
