-- The guard of an `apply`: fail unless the message's row is still deleted in its transaction.
SELECT CASE WHEN found = 0 THEN 1 ELSE ('ended ' || found)::int END
FROM (SELECT count(*) AS found FROM {schema}.outbox
  WHERE shard = {shard} AND position = {position}
    AND event_id = {event_id}::uuid) AS kept
