-- The plain form of outbox_bury, 1 of 3: copy the row to the dead letters. outbox_delete
-- and failure_forget follow in the same transaction. It is rolled back unless the DELETE
-- removed the row that was copied.
INSERT INTO {schema}.dead_letters (event_id, died_at, shard, position, previous_position,
  subject_type, subject_id, subject_version, topic, headers, payload, created_at, error,
  attempts, replays)
SELECT event_id, clock_timestamp(), shard, position, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, created_at, %(error)s, %(attempts)s,
  coalesce(left(substring(headers::text FROM '"replay"\s*:\s*"([0-9]+)"'), 9)::int, 0)
FROM {schema}.outbox
WHERE shard = %(shard)s AND position = %(position)s AND event_id = %(event_id)s
