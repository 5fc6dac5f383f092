-- Topics that an operator has paused: their messages wait until the row is deleted.
CREATE TABLE IF NOT EXISTS {schema}.outbox_topics (
  topic varchar(255) PRIMARY KEY,
  reason text NOT NULL,
  paused_by varchar(128) NOT NULL,
  paused_at timestamptz NOT NULL
)
