-- Failures whose outbox row is gone: a publisher that had lost its shard wrote them,
-- or died between deleting a row and forgetting that it had failed. Nobody reads them.
-- A failure is recorded after its row is visible, so none is swept too early.
DELETE FROM {schema}.outbox_failures f
USING (
  SELECT s.event_id, s.position FROM {schema}.outbox_failures s
  WHERE NOT EXISTS (
    SELECT FROM {schema}.outbox o
    WHERE o.shard = s.shard AND o.position = s.position AND o.event_id = s.event_id)
  LIMIT {limit}) AS gone
WHERE f.event_id = gone.event_id AND f.position = gone.position
