-- Words for what a message or a dead letter m has that its event b does not say, with the number r of its
-- replay (see message_event). shard: it is that of the event in no target
-- that takes its subject. position: it is neither the event's nor a replay's. previous: the message before
-- is not that before the event; before a replay is none, or another replay of its subject, which may be
-- forgotten.
CASE WHEN b.id IS NULL THEN 'event' END,
CASE WHEN m.subject_type <> b.subject_type OR m.subject_version <> b.subject_version
  OR m.subject_id <> b.subject_id THEN 'subject' END,
CASE WHEN NOT EXISTS (
  SELECT FROM {schema}.outbox_targets g
  WHERE m.shard = g.first_shard::bigint + b.shard
    AND (g.types IS NULL OR b.subject_type = ANY(g.types::text[]))) THEN 'shard' END,
CASE WHEN m.position <> b.position AND r.number IS NULL THEN 'position'
  WHEN m.previous_position = CASE WHEN r.number IS NULL THEN b.previous_position ELSE 0 END THEN NULL
  WHEN r.number IS NULL OR m.previous_position <= b.position OR m.previous_position >= m.position
    THEN 'previous'
  WHEN EXISTS (
    SELECT FROM {schema}.outbox w
    WHERE w.shard = m.shard AND w.position = m.previous_position
      AND w.subject_type = m.subject_type AND w.subject_id = m.subject_id) THEN NULL
  WHEN EXISTS (
    SELECT FROM {schema}.event_headers h
    CROSS JOIN LATERAL (
      SELECT FROM {schema}.outbox_replays w
      WHERE w.event_id = h.event_id AND w.position = m.previous_position
      LIMIT 1) AS before
    WHERE h.entity_type = b.subject_type AND h.entity_id = b.subject_id) THEN NULL
  WHEN EXISTS (SELECT FROM {schema}.outbox_jobs WHERE forgotten_before IS NOT NULL) THEN NULL
  ELSE 'previous' END,
CASE WHEN m.topic <> b.topic THEN 'topic' END
