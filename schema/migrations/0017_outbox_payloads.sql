-- The bytes of the events that outbox rows name, by the key of the row. Publishers read them here,
-- because they may not read business_events. A look-up and not a join: PostgreSQL may run a caller's
-- condition on a joined table before the join, and show it each event that is stored.
CREATE OR REPLACE VIEW {schema}.outbox_payloads AS
  SELECT o.shard, o.position, o.event_id,
    (SELECT b.event_data FROM {schema}.business_events b WHERE b.id = o.event_id) AS event_data
  FROM {schema}.outbox o
