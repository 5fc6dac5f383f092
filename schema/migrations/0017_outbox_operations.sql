-- What operators did: one row per call of a verb, written before its first change. object: a topic, a target,
-- a number of shards, or '' for messages, whose ids and subjects are not kept here. database_role:
-- of the session; user_name: of the process, as its system or the caller names it.
CREATE TABLE IF NOT EXISTS {schema}.outbox_operations (
  operated_at timestamptz NOT NULL,
  id uuid NOT NULL,
  verb varchar(64) NOT NULL,
  object varchar(255) NOT NULL,
  reason text NOT NULL,
  database_role varchar(128) NOT NULL,
  user_name varchar(128) NOT NULL,
  PRIMARY KEY (operated_at, id)
)
