-- The plain form of outbox_read, for a database that refuses LATERAL, arrays or a LIMIT by an outer
-- column: return the next rows of one range. Its columns, rows and limits are the same. It does not
-- tell how long it took, since it is one of several statements of its transaction.
WITH page AS (
  SELECT q.position, q.event_id, coalesce(octet_length(q.payload), greatest(q.payload_size, 0)) AS size,
    CASE WHEN {may_be_sent} THEN 1 ELSE 0 END AS wanted
  FROM {schema}.outbox q
  WHERE q.shard = %(shard)s::int
    AND q.position BETWEEN %(position)s::bigint AND %(until)s::bigint
    AND (q.position, q.event_id) > (%(position)s::bigint, %(event_id)s::text::uuid)
  ORDER BY q.position, q.event_id
  LIMIT %(visits)s
), counted AS (
  SELECT position, event_id, count(*) OVER () AS seen, row_number() OVER ordered AS visited,
    sum(wanted) OVER ordered AS taken, sum(wanted * size) OVER ordered AS total
  FROM page
  WINDOW ordered AS (ORDER BY position, event_id ROWS UNBOUNDED PRECEDING)
), bound AS (
  SELECT position, event_id, visited < seen OR seen >= %(visits)s AS is_cut
  FROM counted
  WHERE taken <= %(rows)s AND (total <= %(size)s OR taken <= 1)
  ORDER BY visited DESC
  LIMIT 1
)
SELECT %(number)s::int AS number, q.shard, q.position, q.event_id::text AS event_id,
  q.previous_position, q.subject_type, q.subject_id, q.subject_version, q.topic,
  q.headers::text AS headers,
  coalesce(q.payload, (
    SELECT p.event_data::text FROM {schema}.outbox_payloads p
    WHERE p.shard = q.shard AND p.position = q.position AND p.event_id = q.event_id)) AS payload,
  (extract(epoch FROM greatest(to_timestamp(0), least(q.created_at, clock_timestamp())))
    * 1000000)::bigint AS created_us,
  q.previous_position > 0 AND EXISTS (
    SELECT FROM {schema}.outbox p
    WHERE p.shard = q.shard AND p.position = q.previous_position
      AND p.subject_type = q.subject_type AND p.subject_id = q.subject_id) AS predecessor,
  NULL::boolean AS is_cut
FROM bound b
JOIN {schema}.outbox q ON q.shard = %(shard)s::int
  AND q.position >= %(position)s::bigint AND q.position <= b.position
  AND (q.position, q.event_id) > (%(position)s::bigint, %(event_id)s::text::uuid)
  AND (q.position, q.event_id) <= (b.position, b.event_id)
WHERE {may_be_sent}
UNION ALL
SELECT %(number)s::int, %(shard)s::int, coalesce(max(b.position), %(position)s::bigint),
  coalesce(max(b.event_id::text), %(event_id)s::text), NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL,
  coalesce(bool_or(b.is_cut), false)
FROM bound b
