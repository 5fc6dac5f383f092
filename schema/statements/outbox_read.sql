-- Return the next rows of several shards, each from its own cursor: one key range per
-- shard. LATERAL, because `shard = ANY(..) ORDER BY` sorts everything before PostgreSQL
-- 17. Limited by rows and by bytes; the first row of a shard is always returned.
-- seen: rows of the shard before the limit by bytes, so the relay knows whether more follow.
-- predecessor: whether, in this snapshot, the previous row of the subject still exists;
-- then this row has to wait.
-- created_us: limited, because created_at may be infinity or a date that no client can load.
SELECT o.shard, o.position, o.event_id, o.previous_position, o.subject_type, o.subject_id,
  o.subject_version, o.topic, o.headers::text, o.payload,
  (extract(epoch FROM greatest(to_timestamp(0), least(o.created_at, clock_timestamp())))
    * 1000000)::bigint AS created_us, o.seen,
  o.previous_position > 0 AND EXISTS (
    SELECT FROM {schema}.outbox p
    WHERE p.shard = o.shard AND p.position = o.previous_position
      AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id) AS predecessor
FROM unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[],
    %(limits)s::text::int[])
  AS c(shard, position, event_id, rows)
CROSS JOIN LATERAL (
  SELECT r.*, count(*) OVER () AS seen,
    sum(octet_length(r.payload)) OVER (ORDER BY r.position, r.event_id)
      - octet_length(r.payload) AS bytes_before
  FROM (
    SELECT * FROM {schema}.outbox q
    WHERE q.shard = c.shard AND (q.position, q.event_id) > (c.position, c.event_id)
    ORDER BY q.position, q.event_id
    LIMIT c.rows) AS r
) AS o
WHERE o.bytes_before < %(bytes)s
ORDER BY o.shard, o.position, o.event_id
