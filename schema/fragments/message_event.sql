-- Join to a message or a dead letter m its event b, and the number r of the replay that has its position, if
-- it is not the event's.
LEFT JOIN LATERAL (
  SELECT id, event_type, created_date, event_data, event_size, subject_type, subject_id,
    subject_version, shard, position, previous_position, topic, touches, headers
  FROM {schema}.business_events
  WHERE id = m.event_id
  LIMIT 1) AS b ON true
LEFT JOIN LATERAL (
  SELECT number
  FROM {schema}.outbox_replays
  WHERE event_id = CASE WHEN m.position <> b.position THEN m.event_id END AND position = m.position
  LIMIT 1) AS r ON true
