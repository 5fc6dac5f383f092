-- The guard of a `once`: fail unless the run's memory of all its messages is still in its
-- transaction.
SELECT CASE WHEN found = {number}::text::int THEN 1 ELSE ('ended ' || found)::int END
FROM (SELECT count(*) AS found
  FROM unnest({sources}::text::text[], {dedupe_ids}::text::text[]) AS k(source, dedupe_id)
  JOIN {schema}.inbox i ON i.consumer = {consumer}::text AND i.source = k.source
    AND i.dedupe_id = k.dedupe_id
  WHERE i.run_id = {run_id}::text::uuid) AS kept
