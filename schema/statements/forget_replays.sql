-- Delete replays of forgotten events.
-- The array is in a subquery: its length would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
DELETE FROM {schema}.outbox_replays
WHERE event_id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
