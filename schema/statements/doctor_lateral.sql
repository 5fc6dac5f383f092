-- Read several shards in one statement, each from its own place, as the relay does.
SELECT count(*) FROM unnest('{{0,1}}'::text::int[], '{{0,0}}'::text::bigint[]) AS c(shard, position)
CROSS JOIN LATERAL (
  SELECT position FROM {schema}.doctor_scratch AS q
  WHERE q.shard = c.shard AND q.position > c.position ORDER BY q.position LIMIT 1
) AS o
