-- Let messages in the outbox have the bytes that their events have now. Their keys stay, so their
-- order does. payloads: the bytes, for events that have them in an archive.
UPDATE {schema}.outbox o
SET payload = CASE WHEN o.payload IS NULL THEN NULL ELSE coalesce(b.event_data::text, k.payload) END,
  payload_size = b.event_size, headers = k.headers::json,
  subject_id = CASE WHEN o.subject_type = %(entity_type)s AND o.subject_id = %(entity_id)s
    THEN %(new_id)s ELSE o.subject_id END
FROM unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[],
    %(headers)s::text::text[], %(payloads)s::text::text[])
  AS k(shard, position, event_id, headers, payload)
JOIN {schema}.business_events b ON b.id = k.event_id
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
