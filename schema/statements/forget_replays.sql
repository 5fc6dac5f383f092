-- Delete replays of forgotten events.
DELETE FROM {schema}.outbox_replays
WHERE (event_id, number) IN (
  SELECT r.event_id, r.number FROM {schema}.outbox_replays r
  WHERE r.event_id = ANY(%(event_ids)s::text::uuid[])
  LIMIT 1000)
