-- Return the database's clock as a position, and the keys of the rows of a target that are after it:
-- those of subjects that an earlier, faster clock has moved there. All are from one snapshot, so of
-- each subject they are the last ones that were visible.
WITH clock AS (
  SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS position
)
SELECT clock.position AS now, q.shard, q.position, q.event_id::text AS event_id
FROM clock
LEFT JOIN {schema}.outbox q
  ON q.shard BETWEEN %(first)s AND %(first)s + 1023 AND q.position > clock.position
