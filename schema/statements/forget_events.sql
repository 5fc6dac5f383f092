-- Delete forgotten events.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
DELETE FROM {schema}.business_events
WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
