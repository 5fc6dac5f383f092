-- A page of events by key, then those of them that were saved in a period: there is
-- no index on time, so all pages together read every event there is. The first two
-- columns say how far this one read.
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
