-- How far the fill of a target is that was added with its earlier events. Not in outbox_targets, as
-- each write reads that. state: filling, done or dropped. source: of the headers, which is not
-- stored with an event. epoch: rises with each worker; a page is stored only in the last one.
-- event_id: the last event that was read. bare: events without bytes, which were left out.
-- forgotten: events that were forgotten for good before, of any type; none is while it fills.
CREATE TABLE IF NOT EXISTS {schema}.outbox_fills (
  target varchar(64) PRIMARY KEY,
  state varchar(8) NOT NULL,
  source text NOT NULL,
  epoch bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  event_id uuid NOT NULL,
  events bigint NOT NULL,
  messages bigint NOT NULL,
  bare bigint NOT NULL,
  forgotten bigint NOT NULL
)
