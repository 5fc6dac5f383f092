-- Read a page of the outbox by key, and return the messages that match the filter. So a
-- statement reads a bounded number of rows, however few match. The first four columns say
-- how far the page reached.
WITH page AS (
  SELECT shard, position, event_id, subject_type, subject_id, subject_version, topic,
    octet_length(payload) AS bytes, created_at
  FROM {schema}.outbox
  WHERE (shard, position, event_id) > (%(shard)s::int, %(position)s::bigint, %(event_id)s::uuid)
  ORDER BY shard, position, event_id
  LIMIT %(rows)s
), reached AS (
  SELECT shard, position, event_id FROM page
  ORDER BY shard DESC, position DESC, event_id DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
)
SELECT bounds.seen, reached.shard, reached.position, reached.event_id, page.event_id, page.shard,
  page.position, page.subject_type, page.subject_id, page.subject_version, page.topic, page.bytes,
  page.created_at
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN page
  ON (%(subject_type)s::text IS NULL
    OR page.subject_type = %(subject_type)s::text AND page.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
ORDER BY page.shard, page.position, page.event_id
