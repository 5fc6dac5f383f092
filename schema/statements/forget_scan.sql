-- Read a page of stored events in the order of their ids, and return those that may be forgotten:
-- saved before a time, and named by no outbox row and no dead letter. The first columns say how far
-- the page reached, and how many others are as old.
-- There is no index on time, so all pages together read every event, but no bytes.
WITH page AS (
  SELECT id, saved_date, shard, position, touches
  FROM {schema}.business_events
  WHERE id >= %(first)s::uuid
  ORDER BY id
  LIMIT %(rows)s
), found AS (
  SELECT b.id, b.touches::text AS touches
  FROM page b
  WHERE b.saved_date < %(before)s
    AND NOT EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.event_id = b.id)
    AND NOT EXISTS (SELECT FROM {event_messages} AS m WHERE m.target_state <> 'dropped')
), bounds AS (
  SELECT count(*) AS seen, max(p.id::text) AS reached,
    count(CASE WHEN f.id IS NULL AND p.saved_date < %(before)s THEN 1 END) AS kept
  FROM page p
  LEFT JOIN found f ON f.id = p.id
)
SELECT bounds.seen, bounds.reached, bounds.kept, found.id, found.touches
FROM bounds
LEFT JOIN found ON true
ORDER BY found.id
