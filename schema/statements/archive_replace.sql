-- Record the file that takes the place of another one, whose name is old.
UPDATE {schema}.outbox_archives
SET place = %(place)s, file = %(file)s, events = %(events)s, first_id = %(first_id)s,
  last_id = %(last_id)s, oldest_at = %(oldest_at)s, newest_at = %(newest_at)s,
  file_size = %(file_size)s, sha256 = %(sha256)s, content_sha256 = %(content_sha256)s,
  rewritten_at = clock_timestamp()
WHERE number = %(number)s AND file = %(old)s
