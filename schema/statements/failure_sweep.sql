-- Delete failures without an outbox row. A publisher leaves one if it lost its shard, or died
-- after the DELETE of the row. Nothing reads them. A failure is recorded after its row is
-- visible, so none is deleted too early.
DELETE FROM {schema}.outbox_failures f
USING (
  SELECT s.shard, s.position, s.event_id FROM {schema}.outbox_failures s
  WHERE NOT EXISTS (
    SELECT FROM {schema}.outbox o
    WHERE o.shard = s.shard AND o.position = s.position AND o.event_id = s.event_id)
  LIMIT {limit}) AS gone
WHERE f.shard = gone.shard AND f.position = gone.position AND f.event_id = gone.event_id
