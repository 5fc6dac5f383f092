-- The first guard of a run, in the text of its COMMIT: fail, and keep the server from the COMMIT,
-- unless the transaction has the mark of the run. A failing cast aborts the transaction.
SELECT CASE WHEN mark = {run}::text THEN 1 ELSE ('ended ' || mark)::int END
FROM (SELECT coalesce(current_setting('dsql_outbox.run', true), '') AS mark) AS kept
