-- Pause a topic of a target; for one that is paused already, replace the reason.
INSERT INTO {schema}.outbox_topics (target, topic, reason, paused_by, paused_at)
VALUES (%(target)s, %(topic)s, %(reason)s, current_user::text, clock_timestamp())
ON CONFLICT (target, topic) DO UPDATE SET
  reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by, paused_at = EXCLUDED.paused_at
