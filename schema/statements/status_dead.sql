-- Return the number of dead letters. Counting stops one above {limit}.
SELECT count(*) FROM (SELECT 1 FROM {schema}.dead_letters LIMIT {limit} + 1) AS bounded
