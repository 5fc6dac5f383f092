-- Read a page of events by key, and return those that were saved in a period. There is no
-- index on the time, so all pages together read every event. The first two columns say
-- how far the page reached.
WITH page AS (
  SELECT id, position, saved_date FROM {schema}.business_events
  WHERE id > %(after)s::uuid
  ORDER BY id
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen, (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last_id FROM page
)
SELECT bounds.seen, bounds.last_id, page.position, page.id
FROM bounds
LEFT JOIN page ON page.saved_date >= %(since)s AND page.saved_date < %(until)s
