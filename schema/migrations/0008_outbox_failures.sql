-- Messages that failed and will be tried again; deleted with their outbox row.
-- retry_at infinity: blocked until an operator acts.
CREATE TABLE IF NOT EXISTS {schema}.outbox_failures (
  event_id uuid NOT NULL,
  position bigint NOT NULL,
  shard int NOT NULL,
  attempts int NOT NULL,
  last_error text NOT NULL,
  retry_at timestamptz NOT NULL,
  PRIMARY KEY (event_id, position)
)
