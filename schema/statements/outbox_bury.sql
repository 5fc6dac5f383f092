-- Move a row from the outbox to the dead letters in one transaction, and only if this
-- DELETE removed it: a row that another publisher has settled is not buried again.
-- replays: the number of the replay, 0 for the message as written. It is matched in the
-- text, because `->` fails for JSON that contains \u0000.
WITH gone AS (
  DELETE FROM {schema}.outbox
  WHERE shard = %(shard)s AND position = %(position)s AND event_id = %(event_id)s
  RETURNING *
), forgotten AS (
  DELETE FROM {schema}.outbox_failures
  WHERE event_id = %(event_id)s AND position = %(position)s
)
INSERT INTO {schema}.dead_letters (event_id, died_at, shard, position, previous_position,
  subject_type, subject_id, subject_version, topic, headers, payload, created_at, error,
  attempts, replays)
SELECT event_id, clock_timestamp(), shard, position, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, created_at, %(error)s, %(attempts)s,
  coalesce(left(substring(headers::text FROM '"replay"\s*:\s*"([0-9]+)"'), 9)::int, 0)
FROM gone
