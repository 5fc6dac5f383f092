-- Return the numbers of dead letters and of failed messages that wait. Each count stops at
-- {limit}, to stay cheap.
SELECT (SELECT count(*) FROM (SELECT 1 FROM {schema}.dead_letter_times LIMIT {limit}) AS dead),
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox_failures LIMIT {limit}) AS failed)
