-- How many messages wait; it stops counting one above {limit}, so it stays cheap.
SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox_backlog LIMIT {limit} + 1) AS bounded
