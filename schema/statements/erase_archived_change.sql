-- Note that the bytes of archived events are others now, if they were those that were read.
UPDATE {schema}.business_events b
SET event_size = k.size, fingerprint = decode(k.fingerprint, 'hex'), touches = k.touches::json,
  subject_id = CASE WHEN b.subject_type = %(entity_type)s AND b.subject_id = %(entity_id)s
    THEN %(new_id)s ELSE b.subject_id END,
  erased_at = %(erased_at)s::text::timestamptz
FROM unnest(%(event_ids)s::text::uuid[], %(before)s::text::text[], %(sizes)s::text::int[],
    %(fingerprints)s::text::text[], %(touches)s::text::text[])
  AS k(id, before, size, fingerprint, touches)
WHERE b.id = k.id AND b.fingerprint = decode(k.before, 'hex') AND b.archive IS NOT NULL
