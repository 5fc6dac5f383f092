-- The guard of a `transact`: fail unless all events that the run appended are still in its
-- transaction. A ROLLBACK TO a savepoint takes them away.
SELECT CASE WHEN found = {number} THEN 1
    ELSE ('undone ' || found || ' of ' || {number})::int END
FROM (SELECT count(*) AS found FROM {schema}.business_events
  WHERE id = ANY({ids}::uuid[]) AND write_id = {write_id}::uuid) AS kept
