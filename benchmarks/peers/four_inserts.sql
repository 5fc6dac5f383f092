-- Write events with one entity each: four inserts, fed by rows that the client completed.
-- The floor of the writer: the same rows in the same tables, but nothing is checked and
-- nothing returned, and the client's versions and positions are trusted.
-- No entity may occur twice in one batch.
WITH event AS (
  {source}
), entity AS (
  INSERT INTO {schema}.entities AS e (entity_type, entity_id, version, shard, position,
    previous_position, entity_data, event_id, created_at, updated_at)
  SELECT entity_type, entity_id, 1, shard, position, 0, attributes, id, clock_timestamp(),
    clock_timestamp()
  FROM event
  ON CONFLICT (entity_type, entity_id) DO UPDATE SET
    version = e.version + 1,
    position = greatest(EXCLUDED.position, e.position + 1),
    previous_position = e.position,
    entity_data = EXCLUDED.entity_data,
    event_id = EXCLUDED.event_id,
    updated_at = EXCLUDED.updated_at
), business_event AS (
  INSERT INTO {schema}.business_events (id, event_name, event_type, created_date, saved_date,
    event_data, event_size, fingerprint, write_id, subject_type, subject_id, subject_version, shard,
    position, previous_position, topic, touches)
  SELECT id, name, type, created_date, clock_timestamp(), data::json, octet_length(data),
    fingerprint, write_id, entity_type, entity_id, version, shard, position, 0, topic, touches
  FROM event
), header AS (
  INSERT INTO {schema}.event_headers (entity_type, entity_id, entity_version, event_id,
    event_name, event_type, created_date, saved_date, header_data, header_size)
  SELECT entity_type, entity_id, version, id, name, type, created_date, clock_timestamp(), header,
    octet_length(header::text)
  FROM event
)
INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
  subject_id, subject_version, topic, headers, payload, payload_size, created_at)
SELECT shard, position, id, 0, entity_type, entity_id, version, topic, headers, data,
  octet_length(data), clock_timestamp()
FROM event
