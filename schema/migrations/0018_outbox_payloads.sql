-- The bytes of the events that outbox rows name, by the key of the row. Publishers read them here,
-- because they may not read business_events.
CREATE OR REPLACE VIEW {schema}.outbox_payloads AS
  SELECT o.shard, o.position, o.event_id, b.event_data
  FROM {schema}.outbox o JOIN {schema}.business_events b ON b.id = o.event_id
