-- Return the events of the newest messages that wait, by the ends of the shards' ranges of keys.
-- `seen` is as in events_newest, and 0.
WITH newest AS (
  SELECT o.event_id, max(o.position) AS position
  FROM {schema}.outbox_leases l
  CROSS JOIN LATERAL (
    SELECT event_id, position FROM {schema}.outbox m
    WHERE m.shard = l.shard ORDER BY m.position DESC LIMIT {rows}
  ) AS o
  GROUP BY o.event_id ORDER BY 2 DESC LIMIT {rows}
)
SELECT b.id, b.event_type AS type, b.subject_type, b.subject_id, b.subject_version, b.saved_date,
  0::bigint AS seen
FROM newest n
JOIN {schema}.business_events b ON b.id = n.event_id
ORDER BY n.position DESC
