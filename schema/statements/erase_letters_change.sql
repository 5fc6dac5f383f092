-- Put other headers and another text in the place of those of dead letters.
UPDATE {schema}.dead_letters d
SET headers = k.headers::json, error = %(error)s, error_pattern = %(error)s, payload_size = b.event_size,
  subject_id = CASE WHEN d.subject_type = %(entity_type)s AND d.subject_id = %(entity_id)s
    THEN %(new_id)s ELSE d.subject_id END
FROM unnest(%(event_ids)s::text::uuid[], %(died_at)s::text::timestamptz[], %(headers)s::text::text[])
  AS k(event_id, died_at, headers)
JOIN {schema}.business_events b ON b.id = k.event_id
WHERE d.event_id = k.event_id AND d.died_at = k.died_at
