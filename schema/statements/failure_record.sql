-- Record the failure of a message. The wait outlasts a restart of the publisher.
-- seconds null: blocked until an operator acts.
INSERT INTO {schema}.outbox_failures AS f
  (event_id, position, shard, attempts, last_error, retry_at)
VALUES (%(event_id)s, %(position)s, %(shard)s, %(attempts)s, %(error)s,
  CASE WHEN %(seconds)s::float8 IS NULL THEN 'infinity'
    ELSE clock_timestamp() + %(seconds)s::float8 * interval '1 second' END)
ON CONFLICT (event_id, position) DO UPDATE SET
  attempts = EXCLUDED.attempts, last_error = EXCLUDED.last_error, retry_at = EXCLUDED.retry_at
