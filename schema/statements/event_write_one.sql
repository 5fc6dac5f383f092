-- Write one event with one entity. This is the fast path: all parameters are scalar, and
-- one autocommit statement takes one round trip. Each parameter is a text that is cast here, since
-- a caller's driver or its adapters may say that it is one. business_event, header and message read
-- the version and the position that the upsert returned. An event without a date gets
-- now(), the start of its transaction, in the tables and in the message. Each target that
-- takes the subject gets a message of its own; that of a model only names the event. targets: how
-- many get messages at all, and copies: how many get the bytes, so that the writer knows how much
-- the next event may take.
WITH entity AS (
  INSERT INTO {schema}.entities AS e (entity_type, entity_id, version, shard, position,
    previous_position, entity_data, event_id, created_at, updated_at)
  VALUES (%(entity_type)s::text, %(entity_id)s::text, 1, %(shard)s::text::int,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0,
    %(attributes)s::text::json, %(id)s::text::uuid, clock_timestamp(), clock_timestamp())
  ON CONFLICT (entity_type, entity_id) DO UPDATE SET
    version = e.version + 1,
    position = greatest(EXCLUDED.position, e.position + 1),
    previous_position = e.position,
    entity_data = EXCLUDED.entity_data,
    event_id = EXCLUDED.event_id,
    updated_at = EXCLUDED.updated_at
  RETURNING e.version, e.shard, e.position, e.previous_position
), touch AS (
  -- A version that was not expected makes the cast fail, which aborts the statement.
  SELECT CASE WHEN %(expected)s::text::bigint IS NULL OR version - 1 = %(expected)s::text::bigint
      THEN version
      ELSE ('stale ' || %(id)s::text || ' ' || version - 1)::bigint END AS version,
    shard, position, previous_position,
    coalesce(%(created_date)s::text::timestamptz, now()) AS created,
    CASE WHEN %(created_date)s::text::timestamptz IS NULL
      THEN '","time":"' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
      ELSE '' END || '"}}' AS headers_end
  FROM entity
), business_event AS (
  INSERT INTO {schema}.business_events (id, event_name, event_type, created_date, saved_date,
    event_data, event_size, fingerprint, write_id, subject_type, subject_id, subject_version, shard,
    position, previous_position, topic, touches, headers)
  SELECT %(id)s::text::uuid, %(name)s::text, %(type)s::text, created, clock_timestamp(),
    %(data)s::text::json, octet_length(%(data)s::text), %(fingerprint)s::text::bytea,
    %(write_id)s::text::uuid, %(entity_type)s::text, %(entity_id)s::text, version, shard,
    position, previous_position, %(topic)s::text,
    ('[' || %(touch)s::text || version || '}}]')::json, %(own_headers)s::text::json
  FROM touch
), header AS (
  INSERT INTO {schema}.event_headers (entity_type, entity_id, entity_version, event_id,
    event_name, event_type, created_date, saved_date, header_data, header_size)
  SELECT %(entity_type)s::text, %(entity_id)s::text, version, %(id)s::text::uuid,
    %(name)s::text, %(type)s::text, created, clock_timestamp(),
    %(header)s::text::json, octet_length(%(header)s::text)
  FROM touch
), target AS (
  SELECT first_shard, types, kind FROM {schema}.outbox_targets WHERE state <> 'dropped'
), message AS (
  INSERT INTO {schema}.outbox (shard, position, event_id, previous_position, subject_type,
    subject_id, subject_version, topic, headers, payload, payload_size, created_at)
  SELECT target.first_shard + touch.shard, touch.position, %(id)s::text::uuid,
    touch.previous_position, %(entity_type)s::text, %(entity_id)s::text, touch.version,
    %(topic)s::text,
    (%(headers)s::text || %(key)s::text || '@' || touch.version || touch.headers_end)::json,
    CASE WHEN target.kind <> 'model' THEN %(data)s::text END, octet_length(%(data)s::text),
    clock_timestamp()
  FROM touch CROSS JOIN target
  WHERE target.types IS NULL OR %(entity_type)s::text = ANY(target.types::text[])
)
SELECT version, position, (SELECT count(*) FROM target) AS targets,
  (SELECT count(*) FROM target WHERE kind <> 'model') AS copies FROM touch
