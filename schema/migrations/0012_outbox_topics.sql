-- The topics of a target that an operator has paused. Their messages wait until the row is deleted.
CREATE TABLE IF NOT EXISTS {schema}.outbox_topics (
  target varchar(64) NOT NULL,
  topic varchar(255) NOT NULL,
  reason text NOT NULL,
  paused_by varchar(128) NOT NULL,
  paused_at timestamptz NOT NULL,
  PRIMARY KEY (target, topic)
)
