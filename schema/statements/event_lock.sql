-- Lock events until the end of the transaction, in one order, so that no archive takes their
-- bytes meanwhile. On DSQL the lock is a conflict at COMMIT.
SELECT id FROM {schema}.business_events
WHERE id = ANY(%(event_ids)s::text::uuid[])
ORDER BY id
FOR UPDATE
