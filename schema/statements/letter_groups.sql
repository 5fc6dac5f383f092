-- Read a page of dead letters as letter_page does, and count those that match the filter by target,
-- topic and pattern of the error. target null: there is no other than the default one.
WITH page AS (
  SELECT event_id, died_at, shard, subject_type, subject_id, topic, error,
    coalesce(error_pattern, error) AS pattern
  FROM {schema}.dead_letters
  WHERE died_at <= %(died_at)s::text::timestamptz
    AND died_at >= coalesce(%(since)s::text::timestamptz, '-infinity')
    AND (%(event_id)s::text IS NULL OR died_at < %(died_at)s::text::timestamptz
      OR event_id < %(event_id)s::text::uuid)
  ORDER BY died_at DESC, event_id DESC
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT event_id || '/' || died_at FROM page ORDER BY died_at, event_id LIMIT 1) AS reached
  FROM page
), counted AS (
  SELECT page.shard, page.topic, page.pattern, count(*) AS letters,
    max(page.died_at) AS newest, min(page.died_at) AS oldest
  FROM page
  WHERE page.shard BETWEEN %(first_shard)s AND %(last_shard)s
    AND (%(subject_type)s::text IS NULL OR page.subject_type = %(subject_type)s::text)
    AND (%(subject_id)s::text IS NULL OR page.subject_id = %(subject_id)s::text)
    AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
    AND (%(error)s::text IS NULL OR lower(page.error) LIKE lower(%(error)s::text))
    AND (%(since)s::text IS NULL OR page.died_at >= %(since)s::text::timestamptz)
    AND (%(until)s::text IS NULL OR page.died_at < %(until)s::text::timestamptz)
  GROUP BY page.shard, page.topic, page.pattern
)
SELECT bounds.seen, bounds.reached, counted.topic, counted.pattern, counted.letters,
  counted.newest, counted.oldest,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE counted.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM bounds
LEFT JOIN counted ON true
