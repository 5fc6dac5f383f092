-- Move subjects to the highest positions of their new messages, and return the positions before.
-- The update locks the rows, or conflicts on them, as that of one message does.
INSERT INTO {schema}.inbox_subjects AS s
  (consumer, source, subject_type, subject_id, position, previous_position, seen_at)
SELECT %(consumer)s::text, source, subject_type, subject_id, position, 0, clock_timestamp()
FROM unnest(%(sources)s::text::text[], %(subject_types)s::text::text[],
    %(subject_ids)s::text::text[], %(positions)s::text::bigint[])
  AS k(source, subject_type, subject_id, position)
ON CONFLICT (consumer, source, subject_type, subject_id) DO UPDATE
SET previous_position = s.position, position = greatest(s.position, EXCLUDED.position),
  seen_at = EXCLUDED.seen_at
RETURNING source, subject_type, subject_id, previous_position
