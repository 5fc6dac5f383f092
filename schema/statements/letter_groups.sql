-- Count the newest dead letters by shard, topic and pattern of the error, in one pass: letters are
-- those that match the filter, seen are all that were read. target null: there is no other than
-- the default one.
SELECT counted.topic, counted.pattern, counted.seen, counted.letters, counted.newest,
  counted.oldest,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE counted.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM (
  SELECT page.shard, page.topic, page.pattern, count(*) AS seen,
    count(*) FILTER (WHERE page.is_match) AS letters,
    max(page.died_at) FILTER (WHERE page.is_match) AS newest,
    min(page.died_at) FILTER (WHERE page.is_match) AS oldest
  FROM (
    SELECT d.died_at, d.shard, d.topic, coalesce(d.error_pattern, left(d.error, 200)) AS pattern,
      d.shard BETWEEN %(first_shard)s AND %(last_shard)s
      AND (%(subject_type)s::text IS NULL OR d.subject_type = %(subject_type)s::text)
      AND (%(subject_id)s::text IS NULL OR d.subject_id = %(subject_id)s::text)
      AND (%(topic)s::text IS NULL OR d.topic = %(topic)s::text)
      AND (%(error)s::text IS NULL OR lower(d.error) LIKE lower(%(error)s::text))
      AND (%(until)s::text IS NULL OR d.died_at < %(until)s::text::timestamptz) AS is_match
    FROM {schema}.dead_letters d
    WHERE d.died_at <= coalesce(%(until)s::text::timestamptz, 'infinity')
      AND d.died_at >= coalesce(%(since)s::text::timestamptz, '-infinity')
    ORDER BY d.died_at DESC, d.event_id DESC
    LIMIT %(rows)s
  ) AS page
  GROUP BY page.shard, page.topic, page.pattern
) AS counted
