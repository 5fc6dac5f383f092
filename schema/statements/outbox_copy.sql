-- The plain form of outbox_bury, 1 of 3: copy the rows to the dead letters. outbox_delete
-- and failure_forget follow in the same transaction. It is rolled back unless the DELETE
-- removed the rows that were copied.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
INSERT INTO {schema}.dead_letters (event_id, died_at, shard, position, previous_position,
  subject_type, subject_id, subject_version, topic, headers, payload_size, created_at, error,
  attempts, replays, error_pattern)
SELECT o.event_id, clock_timestamp(), o.shard, o.position, o.previous_position, o.subject_type,
  o.subject_id, o.subject_version, o.topic, o.headers, o.payload_size, o.created_at, k.error,
  k.attempts,
  coalesce(left(substring(o.headers::text FROM '"replay"\s*:\s*"([0-9]+)"'), 9)::int, 0),
  k.pattern
FROM unnest(
    (SELECT %(shards)s::text::int[]), (SELECT %(positions)s::text::bigint[]),
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(errors)s::text::text[]),
    (SELECT %(attempts)s::text::int[]), (SELECT %(patterns)s::text::text[]))
  AS k(shard, position, event_id, error, attempts, pattern)
JOIN {schema}.outbox o
  ON o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
