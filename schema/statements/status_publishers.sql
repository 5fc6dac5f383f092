-- The publishers that announced themselves, and how many seconds ago each was seen last.
SELECT owner, (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8 AS seen
FROM {schema}.outbox_publishers ORDER BY seen_at DESC LIMIT {shown}
