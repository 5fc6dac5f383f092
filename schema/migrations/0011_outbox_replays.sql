-- Every replay of an event: who asked for it, when and why.
-- - number: part of the message's dedupe id.
-- - position: of the outbox row that it made.
CREATE TABLE IF NOT EXISTS {schema}.outbox_replays (
  event_id uuid NOT NULL,
  number int NOT NULL,
  position bigint NOT NULL,
  reason text NOT NULL,
  replayed_by varchar(128) NOT NULL,
  replayed_at timestamptz NOT NULL,
  PRIMARY KEY (event_id, number)
)
