-- Publishers that died without saying so. Their rows count for nothing after one
-- lease, and would stay for ever.
DELETE FROM {schema}.outbox_publishers
WHERE seen_at < clock_timestamp() - %(seconds)s::float8 * interval '1 second'
