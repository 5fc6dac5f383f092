-- Remember a message of a subject, and return the subject's position before it.
-- No row comes back if it was remembered before. The update locks the row, or conflicts on it, so
-- that two messages of a subject are compared one after the other.
WITH new AS (
{inbox_entry}
)
INSERT INTO {schema}.inbox_subjects AS s
  (consumer, source, subject_type, subject_id, position, previous_position, seen_at)
SELECT consumer, source, %(subject_type)s::text, %(subject_id)s::text,
  %(position)s::text::bigint, 0, clock_timestamp()
FROM new
ON CONFLICT (consumer, source, subject_type, subject_id) DO UPDATE
SET previous_position = s.position, position = greatest(s.position, EXCLUDED.position),
  seen_at = EXCLUDED.seen_at
RETURNING previous_position
