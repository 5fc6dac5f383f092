-- Return the numbers of dead letters and of failed messages that wait, of a target. Each count
-- stops at {limit}, to stay cheap.
WITH target AS (
  SELECT first_shard AS first, first_shard + 1023 AS last
  FROM {schema}.outbox_targets WHERE name = %(target)s
)
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM {schema}.dead_letter_times d JOIN target ON d.shard BETWEEN first AND last
    LIMIT {limit}) AS dead),
  (SELECT count(*) FROM (
    SELECT 1 FROM {schema}.outbox_failures f JOIN target ON f.shard BETWEEN first AND last
    LIMIT {limit}) AS failed)
