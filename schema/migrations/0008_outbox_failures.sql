-- Messages that failed and will be tried again. A row has the key of its outbox row, and is deleted
-- with it.
-- - retry_at: the next attempt. Infinity if the message waits for an operator.
CREATE TABLE IF NOT EXISTS {schema}.outbox_failures (
  shard int NOT NULL,
  position bigint NOT NULL,
  event_id uuid NOT NULL,
  attempts int NOT NULL,
  last_error text NOT NULL,
  retry_at timestamptz NOT NULL,
  PRIMARY KEY (shard, position, event_id)
)
