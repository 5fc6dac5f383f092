-- Record failures of messages. The waits outlast a restart of the publisher.
-- seconds infinity: blocked until an operator acts.
INSERT INTO {schema}.outbox_failures AS f
  (event_id, position, shard, attempts, last_error, retry_at)
SELECT k.event_id, k.position, k.shard, k.attempts, k.error,
  CASE WHEN k.seconds = 'infinity' THEN 'infinity'
    ELSE clock_timestamp() + k.seconds * interval '1 second' END
FROM unnest(%(event_ids)s::text::uuid[], %(positions)s::text::bigint[], %(shards)s::text::int[],
    %(attempts)s::text::int[], %(errors)s::text::text[], %(seconds)s::text::float8[])
  AS k(event_id, position, shard, attempts, error, seconds)
ON CONFLICT (event_id, position) DO UPDATE SET
  attempts = EXCLUDED.attempts, last_error = EXCLUDED.last_error, retry_at = EXCLUDED.retry_at
