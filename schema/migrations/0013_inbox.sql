-- The messages that a consumer has handled. A message is remembered in the transaction of its effect.
-- - source: the CloudEvents source, so that two outboxes may use the same ids. Empty if the consumer
--   gave the id itself.
-- - run_id: random, one per run. It tells whether a run whose COMMIT got no answer has committed.
CREATE TABLE IF NOT EXISTS {schema}.inbox (
  consumer varchar(64) NOT NULL,
  source varchar(128) NOT NULL,
  dedupe_id varchar(128) NOT NULL,
  run_id uuid NOT NULL,
  seen_at timestamptz NOT NULL,
  PRIMARY KEY (consumer, source, dedupe_id)
)
