-- Return whether a row names a file.
SELECT EXISTS (
  SELECT FROM {schema}.outbox_archives WHERE place = %(place)s AND file = %(file)s) AS is_named
