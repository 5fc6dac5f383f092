-- How far the fill of a target is, if it was added with its earlier events. It is not in
-- outbox_targets because every write reads that table.
-- - state: filling, done or dropped.
-- - source: of the headers, since it is not stored with an event.
-- - epoch: rises with each worker. Only the last worker can store a page.
-- - event_id: the last event that was read.
-- - forgotten: the number of events that had been forgotten before it began, of any type. Nothing is
--   forgotten while a fill runs.
CREATE TABLE IF NOT EXISTS {schema}.outbox_fills (
  target varchar(64) PRIMARY KEY,
  state varchar(8) NOT NULL,
  source text NOT NULL,
  epoch bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  event_id uuid NOT NULL,
  events bigint NOT NULL,
  messages bigint NOT NULL,
  forgotten bigint NOT NULL
)
