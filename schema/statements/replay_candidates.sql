-- What the replay of stored events needs to know of them: all but the payload.
-- replays: of the event so far. waiting: the event is in the outbox now, as it was
-- written or as a replay.
SELECT b.id, b.event_type, b.created_date, b.subject_type, b.subject_id,
  octet_length(b.event_data::text) AS bytes, b.touches::text,
  coalesce(e.position, 0) AS subject_position,
  coalesce((SELECT max(r.number) FROM {schema}.outbox_replays r
    WHERE r.event_id = b.id), 0) AS replays,
  EXISTS (
    SELECT FROM (
      SELECT b.position AS position
      UNION ALL
      SELECT r.position FROM {schema}.outbox_replays r WHERE r.event_id = b.id) AS p
    JOIN {schema}.outbox o
      ON o.shard = b.shard AND o.position = p.position AND o.event_id = b.id) AS waiting,
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us
FROM {schema}.business_events b
LEFT JOIN {schema}.entities e
  ON e.entity_type = b.subject_type AND e.entity_id = b.subject_id
WHERE b.id = ANY(%(event_ids)s::text::uuid[])
