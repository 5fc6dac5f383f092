-- Return which of these events are stored, and whether each still waits in the outbox.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT b.id, EXISTS (
    SELECT FROM {schema}.outbox o
    WHERE o.shard = b.shard AND o.position = b.position AND o.event_id = b.id) AS waiting
FROM {schema}.business_events b
WHERE b.id = ANY((SELECT %(ids)s::text::uuid[])::uuid[])
