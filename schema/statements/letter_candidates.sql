-- Return the columns that the replay of dead letters needs: all but the payload.
-- last_position: the highest position of the subject's events and of this event's
-- replays. The next replay is above it, so it cannot get the key of an earlier row, which
-- a delayed DELETE may name. replays: of this event so far. waiting: the event is in the
-- outbox, as written or as a replay.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
SELECT d.event_id, d.died_at::text AS died_at, d.died_at AS at, d.topic, d.shard, d.subject_type, d.subject_id,
  b.event_size AS size, d.headers::text AS headers,
  coalesce(greatest(e.position, before.position), 0) AS last_position,
  coalesce(before.number, 0) AS replays,
  EXISTS (SELECT FROM {event_messages} AS m WHERE m.shard = d.shard) AS waiting,
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(died_ats)s::text::timestamptz[]))
  AS k(event_id, died_at)
JOIN {schema}.dead_letters d ON d.event_id = k.event_id AND d.died_at = k.died_at
JOIN {schema}.business_events b ON b.id = d.event_id
LEFT JOIN {schema}.entities e
  ON e.entity_type = d.subject_type AND e.entity_id = d.subject_id
LEFT JOIN LATERAL (
  SELECT max(r.number) AS number, max(r.position) AS position
  FROM {schema}.outbox_replays r WHERE r.event_id = d.event_id
) AS before ON true
