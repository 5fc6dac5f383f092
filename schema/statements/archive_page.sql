-- Return a page of the files of archived events, in the order of their numbers: those with an
-- event that was saved before a time.
SELECT place, number, file, events, first_id, last_id, oldest_at, newest_at, file_size, sha256,
  content_sha256
FROM {schema}.outbox_archives
WHERE number > %(after)s AND oldest_at < %(before)s
ORDER BY number
LIMIT %(rows)s
