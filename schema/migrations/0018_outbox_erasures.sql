-- Requests to erase an entity: who asked, when and why, but not what was erased.
-- - event_id, version: of the event that announces the erasure. Everything older is erased.
-- - finished_at: NULL if some of it is not erased yet.
CREATE TABLE IF NOT EXISTS {schema}.outbox_erasures (
  erased_at timestamptz NOT NULL,
  entity_type varchar(64) NOT NULL,
  entity_id varchar(128) NOT NULL,
  event_id uuid NOT NULL,
  version bigint NOT NULL,
  reason text NOT NULL,
  database_role varchar(128) NOT NULL,
  user_name varchar(128) NOT NULL,
  finished_at timestamptz,
  PRIMARY KEY (erased_at, event_id)
)
