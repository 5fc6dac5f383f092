-- How far a consumer is in each subject of each outbox. The source names the outbox.
-- - position: the highest one of the messages handled, in microseconds.
-- - previous_position: the same before the last message. 0 if there was none.
CREATE TABLE IF NOT EXISTS {schema}.inbox_subjects (
  consumer varchar(64) NOT NULL,
  source varchar(128) NOT NULL,
  subject_type varchar(64) NOT NULL,
  subject_id varchar(128) NOT NULL,
  position bigint NOT NULL,
  previous_position bigint NOT NULL,
  seen_at timestamptz NOT NULL,
  PRIMARY KEY (consumer, source, subject_type, subject_id)
)
