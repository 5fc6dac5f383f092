-- Pause a topic; for one that is paused already, replace the reason.
INSERT INTO {schema}.outbox_topics (topic, reason, paused_by, paused_at)
VALUES (%(topic)s, %(reason)s, current_user::text, clock_timestamp())
ON CONFLICT (topic) DO UPDATE SET
  reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by, paused_at = EXCLUDED.paused_at
