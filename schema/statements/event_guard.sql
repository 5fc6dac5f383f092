-- The guard of a `transact`: fail unless all events that the run appended are still in its
-- transaction. A ROLLBACK TO a savepoint takes them away.
SELECT CASE WHEN found = {number}::text::int THEN 1
    ELSE ('undone ' || found || ' of ' || {number}::text)::int END
FROM (SELECT count(*) AS found FROM {schema}.business_events
  WHERE id = ANY({ids}::text::uuid[]) AND write_id = {write_id}::text::uuid) AS kept
