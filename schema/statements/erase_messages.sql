-- Return the messages of events in the outbox, as written or as replays, of all targets. is_other:
-- the payload is not the bytes of the event. The array is in a subquery: its length would make
-- PostgreSQL read a table of up to some 100,000 rows as a whole, for each call.
SELECT m.shard, m.position, m.event_id, m.headers::text AS headers,
  coalesce(octet_length(m.payload), 0) AS bytes,
  m.payload_size <> b.event_size OR coalesce(m.payload <> b.event_data::text, false) AS is_other,
  f.last_error AS error
FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS k(id)
JOIN {schema}.business_events b ON b.id = k.id
CROSS JOIN LATERAL {event_messages} AS m
LEFT JOIN {schema}.outbox_failures f
  ON f.shard = m.shard AND f.position = m.position AND f.event_id = m.event_id
ORDER BY m.shard, m.position, m.event_id
