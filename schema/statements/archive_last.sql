-- Return the highest number of a file, and whether files are in this place already.
SELECT coalesce(max(number), 0)::int AS number,
  count(CASE WHEN place = %(place)s THEN 1 END) > 0 AS is_known
FROM {schema}.outbox_archives
