-- Return the newest events. No index has their times, so this reads the table, but not more than
-- one row above {limit}: if `seen` is above it, the events are any, and not the newest.
WITH read AS (SELECT id, saved_date, position FROM {schema}.business_events LIMIT {limit} + 1),
newest AS (
  SELECT id FROM read ORDER BY saved_date DESC, position DESC LIMIT {rows}
)
SELECT b.id, b.event_type AS type, b.subject_type, b.subject_id, b.subject_version, b.saved_date,
  (SELECT count(*) FROM read) AS seen
FROM newest n
JOIN {schema}.business_events b ON b.id = n.id
ORDER BY b.saved_date DESC, b.position DESC
