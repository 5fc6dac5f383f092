-- Lock events until the end of the transaction, in one order, so that they are not forgotten
-- meanwhile. On DSQL the lock is a conflict at COMMIT.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id FROM {schema}.business_events
WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
ORDER BY id
FOR UPDATE
