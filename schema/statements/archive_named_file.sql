-- Return whether a row names a file. No two files have one name, wherever they are.
SELECT EXISTS (SELECT FROM {schema}.outbox_archives WHERE file = %(file)s) AS is_named
