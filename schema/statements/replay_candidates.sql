-- Return the columns that the replay of stored events into a target needs: all but the payload.
-- last_position: the highest position of the subject's events and of this event's
-- replays. The next replay is above it, so it cannot get the key of an earlier row, which
-- a delayed DELETE may name. replays: of this event so far. waiting: the event is in the
-- outbox, as written or as a replay. is_taken: the target takes the type of the subject.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT b.id AS event_id, b.event_type AS type, b.topic, g.first_shard::bigint + b.shard AS shard, b.created_date, b.saved_date AS at, b.subject_type,
  b.subject_id, b.event_size AS size,
  b.touches::text AS touches, b.headers::text AS headers,
  coalesce(greatest(e.position, before.position), 0) AS last_position,
  coalesce(before.number, 0) AS replays,
  EXISTS (SELECT FROM {event_messages} AS m WHERE m.target = g.name) AS waiting,
  g.types IS NULL OR b.subject_type = ANY(g.types::text[]) AS is_taken,
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us
FROM {schema}.business_events b
JOIN {schema}.outbox_targets g ON g.name = %(target)s AND g.state = 'running'
LEFT JOIN {schema}.entities e
  ON e.entity_type = b.subject_type AND e.entity_id = b.subject_id
LEFT JOIN LATERAL (
  SELECT max(r.number) AS number, max(r.position) AS position
  FROM {schema}.outbox_replays r WHERE r.event_id = b.id
) AS before ON true
WHERE b.id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
