-- Delete replays of forgotten events.
-- The array is in a subquery: its length would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.outbox_replays d
USING (
  SELECT r.event_id, r.number
  FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS k(id)
  JOIN {schema}.outbox_replays r ON r.event_id = k.id
  LIMIT 1000) AS f
WHERE d.event_id = f.event_id AND d.number = f.number
