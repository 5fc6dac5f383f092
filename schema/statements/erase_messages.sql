-- Return the messages of events in the outbox, as written or as replays, of all targets. is_other:
-- the payload is not the bytes of the event. The array is in a subquery: its length would
-- make PostgreSQL read a table of up to some 100,000 rows as a whole, for each call.
-- UNION: a message is changed once, also if several rows say that it is at its position.
SELECT o.shard, o.position, o.event_id, o.headers::text AS headers,
  coalesce(octet_length(o.payload), 0) AS bytes,
  o.payload_size <> b.event_size OR coalesce(o.payload <> b.event_data::text, false) AS is_other,
  f.last_error AS error
FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS k(id)
JOIN {schema}.business_events b ON b.id = k.id
CROSS JOIN LATERAL (
  SELECT b.position AS position
  UNION
  SELECT r.position FROM {schema}.outbox_replays r WHERE r.event_id = b.id) AS p
CROSS JOIN {schema}.outbox_targets g
JOIN {schema}.outbox o
  ON o.shard = g.first_shard::bigint + b.shard AND o.position = p.position AND o.event_id = b.id
LEFT JOIN {schema}.outbox_failures f
  ON f.shard = o.shard AND f.position = o.position AND f.event_id = o.event_id
ORDER BY o.shard, o.position, o.event_id
