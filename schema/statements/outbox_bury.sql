-- Move rows from the outbox to the dead letters, without the payload, in one transaction, and only if this
-- DELETE removed them: a row that another publisher has settled is not buried again.
-- replays: the number of the replay, 0 for the message as written. It is matched in the
-- text, because `->` fails for JSON that contains \u0000.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
WITH gone AS (
  DELETE FROM {schema}.outbox o
  USING unnest(
      (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
      (SELECT %(event_ids)s::text::uuid[]), (SELECT %(errors)s::text::text[]),
      (SELECT %(attempts)s::text::int[]), (SELECT %(patterns)s::text::text[]))
    AS k(shard, position, event_id, error, attempts, pattern)
  WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
  RETURNING o.*, k.error, k.attempts, k.pattern
), forgotten AS (
  DELETE FROM {schema}.outbox_failures f
  USING unnest(
      (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
      (SELECT %(event_ids)s::text::uuid[])) AS k(shard, position, event_id)
  WHERE f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
)
INSERT INTO {schema}.dead_letters (event_id, died_at, shard, position, previous_position,
  subject_type, subject_id, subject_version, topic, headers, payload_size, created_at, error,
  attempts, replays, error_pattern)
SELECT event_id, clock_timestamp(), shard, position, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload_size, created_at, error, attempts,
  coalesce(left(substring(headers::text FROM '"replay"\s*:\s*"([0-9]+)"'), 9)::int, 0),
  pattern
FROM gone
