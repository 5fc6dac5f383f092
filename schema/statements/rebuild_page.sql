-- Read a page of touches in the order of their key, and return its events, each for
-- its subject, in the order of its versions. Left out are events whose message waits in the
-- outbox or is a dead letter: the publisher has not applied them.
-- epochs, held: they rise, and are above 0, when a publisher takes a shard. They come from the
-- same snapshot as the events, so that no event is applied by both.
WITH page AS (
  SELECT entity_type, entity_id, entity_version, event_id
  FROM {schema}.event_headers
  WHERE entity_type >= %(entity_type)s::text AND (entity_type, entity_id, entity_version)
    > (%(entity_type)s::text, %(entity_id)s::text, %(after)s::bigint)
  ORDER BY entity_type, entity_id, entity_version
  LIMIT %(rows)s
), reached AS (
  SELECT entity_type, entity_id, entity_version FROM page
  ORDER BY entity_type DESC, entity_id DESC, entity_version DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), fence AS (
  SELECT coalesce(sum(epoch), 0)::bigint AS epochs,
    count(CASE WHEN owner IS NOT NULL AND expires_at > clock_timestamp() THEN 1 END) AS held
  FROM {schema}.outbox_leases
), found AS (
  SELECT b.id, b.event_type, b.created_date, b.saved_date, b.touches::text AS touches, b.shard,
    b.position, b.subject_type, b.subject_id, b.subject_version, b.topic,
    b.event_data::text AS payload, b.headers::text AS headers
  FROM page
  JOIN {schema}.business_events b ON b.id = page.event_id
    AND b.subject_type = page.entity_type AND b.subject_id = page.entity_id
  WHERE NOT EXISTS (
      SELECT FROM {schema}.outbox o
      WHERE o.shard = b.shard AND o.position = b.position AND o.event_id = b.id)
    AND NOT EXISTS (
      SELECT FROM {schema}.dead_letters d WHERE d.event_id = b.id AND d.replays = 0)
)
SELECT bounds.seen, reached.entity_type, reached.entity_id, reached.entity_version,
  fence.epochs, fence.held, found.id, found.event_type, found.created_date, found.saved_date,
  found.touches, found.shard, found.position, found.subject_type, found.subject_id,
  found.subject_version, found.topic, found.payload, found.headers
FROM bounds
CROSS JOIN fence
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.subject_type, found.subject_id, found.subject_version
