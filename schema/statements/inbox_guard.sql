-- The guard of a `once`: fail unless the run's memory of all its messages is still in its
-- transaction. The rows of the run have no other keys than these, so no pair of them is too many.
SELECT CASE WHEN found = {number}::text::int THEN 1 ELSE ('ended ' || found)::int END
FROM (SELECT count(*) AS found FROM {schema}.inbox
  WHERE consumer = {consumer}::text AND source = ANY({sources}::text::text[])
    AND dedupe_id = ANY({dedupe_ids}::text::text[]) AND run_id = {run_id}::text::uuid) AS kept
