-- Return the next messages of a consumer in key order, and whether each is old enough to be
-- forgotten, by the database's clock. There is no index on the time: it would be a hot tail,
-- and every message would pay for it.
SELECT source, dedupe_id,
  seen_at < clock_timestamp() - %(seconds)s::text::float8 * interval '1 second' AS is_old
FROM {schema}.inbox
WHERE consumer = %(consumer)s::text AND source >= %(source)s::text
  AND (source, dedupe_id) > (%(source)s::text, %(dedupe_id)s::text)
ORDER BY source, dedupe_id
LIMIT %(rows)s::text::bigint
