-- Return how many replays each of some events has, if any.
-- The array is in a subquery: its length would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
SELECT event_id, count(*) FROM {schema}.outbox_replays
WHERE event_id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
GROUP BY event_id
