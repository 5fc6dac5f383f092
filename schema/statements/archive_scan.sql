-- Read a page of stored events in the order of their ids, and return those that may be archived:
-- saved before a time, with their bytes, and named by no outbox row and no dead letter. The first
-- columns say how far the page reached, how many others are as old and have their bytes, and how
-- old its oldest other event with bytes is.
-- There is no index on time, so all pages together read every event, but no bytes.
WITH page AS (
  SELECT id, saved_date, event_size, shard, position, touches, archive
  FROM {schema}.business_events
  WHERE id >= %(first)s::uuid
  ORDER BY id
  LIMIT %(rows)s
), found AS (
  SELECT b.id, b.event_size AS bytes, b.touches::text AS touches
  FROM page b
  WHERE b.archive IS NULL AND b.saved_date < %(before)s
    AND NOT EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.event_id = b.id)
    AND NOT EXISTS (SELECT FROM {event_messages} AS m WHERE m.target_state <> 'dropped')
), bounds AS (
  SELECT count(*) AS seen, max(p.id::text) AS reached,
    count(CASE WHEN p.archive IS NULL AND f.id IS NULL AND p.saved_date < %(before)s THEN 1 END)
      AS kept,
    min(CASE WHEN p.archive IS NULL AND f.id IS NULL THEN p.saved_date END) AS oldest
  FROM page p
  LEFT JOIN found f ON f.id = p.id
)
SELECT bounds.seen, bounds.reached, bounds.kept, bounds.oldest, found.id, found.bytes, found.touches
FROM bounds
LEFT JOIN found ON true
ORDER BY found.id
