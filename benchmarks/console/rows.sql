-- Fills the tables with {rows} rows each, as writers and publishers would leave them. Every entity
-- has four versions, so there are {rows} / 4 entities. `n` is the number of an event.
CREATE TEMPORARY TABLE made AS
SELECT n, md5('event ' || n)::uuid AS id, 1 + n / ({rows} / 4) AS version, e.number AS entity,
  CASE e.number % 3 WHEN 0 THEN 'Loan' WHEN 1 THEN 'Car' ELSE 'Customer' END AS type,
  CASE e.number % 3 WHEN 0 THEN 'LOAN-' WHEN 1 THEN 'CAR-' ELSE 'CUST-' END || e.number AS name,
  CASE e.number % 3 WHEN 0 THEN 'LoanPaymentSubmitted' WHEN 1 THEN 'CarServiceDone'
    ELSE 'CustomerMoved' END AS event_type,
  e.number % 16 AS shard,
  (extract(epoch FROM now()) * 1000000)::bigint - 3600000000 + n * 3600000000 / {rows} AS position,
  now() - interval '1 hour' + n * interval '1 hour' / {rows} AS saved
FROM generate_series(0, {rows} - 1) AS n
CROSS JOIN LATERAL (SELECT n % ({rows} / 4) AS number) AS e;

INSERT INTO outbox.business_events
SELECT id, event_type, event_type, saved, saved,
  json_build_object('id', id, 'type', event_type, 'balance', n || '.00'), 100, ''::bytea, id, type,
  name, version, shard, position, 0, 'events.' || event_type,
  json_build_array(json_build_object('entityType', type, 'entityId', name, 'version', version))
FROM made;

INSERT INTO outbox.event_headers
SELECT type, name, version, id, event_type, event_type, saved, saved, '{{}}', 2 FROM made;

INSERT INTO outbox.entities
SELECT type, name, version, shard, position, 0,
  json_build_object('status', 'active', 'balance', n || '.00', 'versions', version), id,
  saved - interval '40 minutes', saved
FROM made WHERE n >= {rows} - {rows} / 4;

INSERT INTO outbox.outbox
SELECT shard, position, id, CASE WHEN version = 1 THEN 0 ELSE position - 900000000 END, type, name,
  version, 'events.' || event_type, json_build_object('type', event_type),
  '{{"id": "' || id || '"}}', 44, saved
FROM made;

INSERT INTO outbox.outbox_failures
SELECT shard, position, id, 1 + n % 9, 'nats: no response from stream EVENTS within 5 s',
  CASE WHEN n % 3 = 0 THEN 'infinity' ELSE now() + interval '5 minutes' END
FROM made WHERE n < {rows} / 100;

INSERT INTO outbox.dead_letters
SELECT md5('letter ' || n)::uuid, saved, shard, position, 0, type, name, version,
  'events.' || event_type, json_build_object('type', event_type), 2, saved, error, 1 + n % 5, 0,
  replace(regexp_replace(error, '[^ ]*[0-9][^ ]*', '*', 'g'), '* *', '*')
FROM made CROSS JOIN LATERAL (
  SELECT CASE WHEN n % 500 = 7 THEN 'kafka: the topic ' || 'events.' || event_type || ' does not exist'
    WHEN n % 7 < 3 THEN 'nats: message of ' || 1048576 + n || ' bytes is over the server''s max_payload of 1048576 bytes'
    WHEN n % 7 < 5 THEN 'the partner refused ' || name || ': account ' || md5(n::text) || ' is closed'
    ELSE 'no answer from https://partner.example.com/orders/' || n || ' within 5 s' END) AS e(error);

INSERT INTO outbox.outbox_topics (target, topic, reason, paused_by, paused_at)
VALUES ('default', 'events.CustomerMoved', 'the CRM is under maintenance', 'shop_operator', now() - interval '20 minutes');

INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)
SELECT 'relay-' || n || '-' || left(md5(n::text), 6), now(), 3600, '[]', 'default' FROM generate_series(1, 3) AS n;

UPDATE outbox.outbox_leases SET epoch = 4, expires_at = now() + interval '1 hour',
  owner = 'relay-' || 1 + shard % 3 || '-' || left(md5((1 + shard % 3)::text), 6);

ANALYZE;
