-- Note that the bytes of archived events are others now, if they were those that were read.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.business_events b
SET event_size = k.size, fingerprint = decode(k.fingerprint, 'hex'), touches = k.touches::json,
  subject_id = CASE WHEN b.subject_type = %(entity_type)s AND b.subject_id = %(entity_id)s
    THEN %(new_id)s ELSE b.subject_id END,
  erased_at = %(erased_at)s::text::timestamptz
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(before)s::text::text[]),
    (SELECT %(sizes)s::text::int[]), (SELECT %(fingerprints)s::text::text[]),
    (SELECT %(touches)s::text::text[]))
  AS k(id, before, size, fingerprint, touches)
WHERE b.id = k.id AND b.fingerprint = decode(k.before, 'hex') AND b.archive IS NOT NULL
