-- Join to a message or a dead letter m its event b, the number r of the replay that has its position, if it
-- is not the event's, and the id `told` of an entity, if it tells of an erasure while the event has the
-- pseudonym.
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
CROSS JOIN LATERAL (
  SELECT CASE WHEN m.subject_id <> b.subject_id AND left(b.subject_id, 7) = 'erased-' AND EXISTS (
    SELECT FROM {schema}.outbox_erasures e WHERE e.event_id = m.event_id) THEN m.subject_id END AS id) AS told
