-- Return the number of waiting messages. Counting stops one above {limit}, to stay cheap.
SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox_backlog LIMIT {limit} + 1) AS bounded
