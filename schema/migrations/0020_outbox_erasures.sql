-- What was asked to be erased: who, when and why, never what. entity_id: after an erasure of ids,
-- the pseudonym. event_id, version: of the event that says so; what is older than it is erased.
-- finished_at: NULL: not all of it is erased yet.
CREATE TABLE IF NOT EXISTS {schema}.outbox_erasures (
  erased_at timestamptz NOT NULL,
  id uuid NOT NULL,
  entity_type varchar(64) NOT NULL,
  entity_id varchar(128) NOT NULL,
  event_id uuid NOT NULL,
  version bigint NOT NULL,
  reason text NOT NULL,
  database_role varchar(128) NOT NULL,
  user_name varchar(128) NOT NULL,
  finished_at timestamptz,
  PRIMARY KEY (erased_at, id)
)
