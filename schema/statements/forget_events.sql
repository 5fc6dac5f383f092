-- Delete forgotten events. number: of the file that had their bytes; NULL: they were here.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
DELETE FROM {schema}.business_events
WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[]) AND archive IS NOT DISTINCT FROM %(number)s::int
