-- Return the next rows of several ranges, each from its own place, in one snapshot.
-- bounds: the end of each range. It looks at keys and sizes only, so the limit of bytes
-- applies before any payload is gathered, and at no position after `until`, however many deleted
-- rows follow there. LATERAL, because `shard = ANY(..) ORDER BY`
-- sorts everything before PostgreSQL 17.
-- Each row comparison stands beside a bound of its first column, in every statement: a server may
-- use it as a filter only, and read the range from its beginning.
-- One result of each range has no subject: its position and event_id are the end of the
-- range, its created_us is the database's clock, and its previous_position is how long this took,
-- in microseconds: the transaction has no other statement that takes time.
-- is_cut: whether a limit kept back rows after the end.
-- predecessor: whether, in this snapshot, the previous row of the subject still exists;
-- then this row has to wait. With OFFSET, no plan hashes the whole table for it.
-- payload: by key, and only for a row that has none, which a join would not see before it looks.
-- created_us: limited, because created_at may be infinity or a date that no client can load.
WITH bounds AS (
  SELECT c.number, c.shard, c.position, c.event_id, e.end_position, e.end_event_id, e.taken,
    e.visited < e.seen OR e.seen >= c.visits AS is_cut
  FROM unnest(%(numbers)s::text::int[], %(shards)s::text::int[], %(positions)s::text::bigint[],
      %(event_ids)s::text::uuid[], %(rows)s::text::int[], %(sizes)s::text::bigint[],
      %(visits)s::text::int[], %(untils)s::text::bigint[])
    AS c(number, shard, position, event_id, rows, size, visits, until)
  CROSS JOIN LATERAL (
    SELECT c.position AS end_position, c.event_id AS end_event_id,
      0::bigint AS taken, 0::bigint AS visited, 0::bigint AS seen
    UNION ALL
    SELECT w.position, w.event_id, w.taken, w.visited, w.seen
    FROM (
      SELECT r.position, r.event_id, count(*) OVER () AS seen,
        row_number() OVER ordered AS visited,
        sum(r.wanted) OVER ordered AS taken,
        sum(r.wanted * r.size) OVER ordered AS total
      FROM (
        SELECT q.position, q.event_id, coalesce(octet_length(q.payload), greatest(q.payload_size, 0)) AS size,
          CASE WHEN {may_be_sent} THEN 1 ELSE 0 END AS wanted
        FROM {schema}.outbox q
        WHERE q.shard = c.shard AND q.position BETWEEN c.position AND c.until
          AND (q.position, q.event_id) > (c.position, c.event_id)
        ORDER BY q.position, q.event_id
        LIMIT c.visits) AS r
      WINDOW ordered AS (ORDER BY r.position, r.event_id ROWS UNBOUNDED PRECEDING)
    ) AS w
    WHERE w.taken <= c.rows AND (w.total <= c.size OR w.taken <= 1)
    ORDER BY visited DESC
    LIMIT 1) AS e
)
SELECT b.number, b.shard, o.position, o.event_id::text AS event_id, o.previous_position, o.subject_type,
  o.subject_id, o.subject_version, o.topic, o.headers::text AS headers,
  coalesce(o.payload, (
    SELECT p.event_data::text FROM {schema}.outbox_payloads p
    WHERE p.shard = o.shard AND p.position = o.position AND p.event_id = o.event_id)) AS payload,
  (extract(epoch FROM greatest(to_timestamp(0), least(o.created_at, clock_timestamp())))
    * 1000000)::bigint AS created_us,
  o.previous_position > 0 AND EXISTS (
    SELECT FROM {schema}.outbox p
    WHERE p.shard = o.shard AND p.position = o.previous_position
      AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id
    OFFSET 0) AS predecessor,
  NULL::boolean AS is_cut
FROM bounds b
CROSS JOIN LATERAL (
  SELECT * FROM {schema}.outbox q
  WHERE q.shard = b.shard AND q.position BETWEEN b.position AND b.end_position
    AND (q.position, q.event_id) > (b.position, b.event_id)
    AND (q.position, q.event_id) <= (b.end_position, b.end_event_id)
    AND {may_be_sent}
  ORDER BY q.position, q.event_id
  LIMIT b.taken) AS o
UNION ALL
SELECT b.number, b.shard, b.end_position, b.end_event_id::text,
  (extract(epoch FROM clock_timestamp() - now()) * 1000000)::bigint,
  NULL, NULL, NULL, NULL, NULL,
  NULL, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL, b.is_cut
FROM bounds b
