-- Messages that failed and will be tried again, by the key of their outbox row, and deleted with it.
-- retry_at infinity: blocked until an operator acts.
CREATE TABLE IF NOT EXISTS {schema}.outbox_failures (
  shard int NOT NULL,
  position bigint NOT NULL,
  event_id uuid NOT NULL,
  attempts int NOT NULL,
  last_error text NOT NULL,
  retry_at timestamptz NOT NULL,
  PRIMARY KEY (shard, position, event_id)
)
