-- Return a page of dead letters in the order of their key, each with what its headers are made of, as
-- verify_messages does for the outbox. died_at: as text, since it may be a time that no client can
-- load. Row by row, since a join would read a whole table for each page.
WITH page AS (
  SELECT event_id, died_at
  FROM {schema}.dead_letters
  WHERE event_id >= %(event_id)s::text::uuid
    AND (event_id, died_at) > (%(event_id)s::text::uuid, %(died_at)s::text::timestamptz)
  ORDER BY event_id, died_at
  LIMIT %(rows)s
)
SELECT m.shard, m.position, m.event_id, m.died_at::text AS died_at,
  concat_ws(' ',
    {message_faults},
    CASE WHEN m.payload_size <> b.event_size THEN 'payload_size' END,
    CASE WHEN m.replays <> coalesce(r.number, 0) THEN 'replays' END) AS faults,
  r.number, m.headers::text AS headers, b.event_type, b.created_date AS created,
  b.touches::text AS touches, b.headers::text AS own, NULL::text AS payload
FROM page
CROSS JOIN LATERAL (
  SELECT *
  FROM {schema}.dead_letters d
  WHERE d.event_id = page.event_id AND d.died_at = page.died_at
  LIMIT 1) AS m
{message_event}
ORDER BY m.event_id, m.died_at
