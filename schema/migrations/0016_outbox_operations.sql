-- What operators did. Each call of a verb writes one row before its first change.
-- - object: a topic, a target or a number of shards. Empty for messages, since their ids and subjects
--   are not kept here.
-- - database_role: of the session.
-- - user_name: of the process, as the system or the caller names it.
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
