-- The guard of a `once`: fail unless the run's memory of the message is still in its transaction.
SELECT CASE WHEN found = 1 THEN 1 ELSE ('ended ' || found)::int END
FROM (SELECT count(*) AS found FROM {schema}.inbox
  WHERE consumer = {consumer} AND source = {source}
    AND dedupe_id = {dedupe_id} AND run_id = {run_id}::uuid) AS kept
