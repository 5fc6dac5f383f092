-- Record a file of archived events.
INSERT INTO {schema}.outbox_archives (number, place, file, events, first_id, last_id, oldest_at,
  newest_at, file_size, sha256, content_sha256, made_at)
VALUES (%(number)s, %(place)s, %(file)s, %(events)s, %(first_id)s, %(last_id)s, %(oldest_at)s,
  %(newest_at)s, %(file_size)s, %(sha256)s, %(content_sha256)s, clock_timestamp())
