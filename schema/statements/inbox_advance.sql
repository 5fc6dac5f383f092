-- Record that a message of a subject is handled, and return the position before it. The
-- update locks the row, or conflicts on it, so that two messages of a subject are compared
-- one after the other.
INSERT INTO {schema}.inbox_subjects AS s
  (consumer, source, subject_type, subject_id, position, previous_position, seen_at)
VALUES (%(consumer)s::text, %(source)s::text, %(subject_type)s::text, %(subject_id)s::text,
  %(position)s::text::bigint, 0, clock_timestamp())
ON CONFLICT (consumer, source, subject_type, subject_id) DO UPDATE
SET previous_position = s.position, position = greatest(s.position, EXCLUDED.position),
  seen_at = EXCLUDED.seen_at
RETURNING previous_position
