-- Return a page of the outbox in the order of its key, each message with what its headers are made of.
-- It ends before the payloads exceed a limit, but has one message at least. Row by row, since a join
-- would read a whole table for each page.
-- faults: words for what is not as the event says. own: the headers of the event. payload: if it is not
-- the text of the event's bytes.
WITH page AS (
  SELECT shard, position, event_id, row_number() OVER ordered AS number,
    sum(coalesce(octet_length(payload), 0)) OVER ordered AS taken
  FROM (
    SELECT shard, position, event_id, payload
    FROM {schema}.outbox
    WHERE shard >= %(shard)s::int AND (shard, position, event_id)
      > (%(shard)s::int, %(position)s::bigint, %(event_id)s::text::uuid)
    ORDER BY shard, position, event_id
    LIMIT %(rows)s) AS keys
  WINDOW ordered AS (ORDER BY shard, position, event_id ROWS UNBOUNDED PRECEDING)
)
SELECT m.shard, m.position, m.event_id, NULL::text AS died_at,
  concat_ws(' ',
    {message_faults},
    CASE WHEN m.payload_size <> b.event_size THEN 'payload_size' END) AS faults,
  r.number, m.headers::text AS headers, b.event_type, b.created_date AS created,
  b.touches::text AS touches, b.headers::text AS own, other.payload
FROM page
CROSS JOIN LATERAL (
  SELECT *
  FROM {schema}.outbox w
  WHERE w.shard = page.shard AND w.position = page.position AND w.event_id = page.event_id
  LIMIT 1) AS m
{message_event}
CROSS JOIN LATERAL (
  SELECT CASE WHEN (m.payload = b.event_data::text) IS NOT TRUE THEN m.payload END AS payload) AS other
WHERE page.taken <= %(bytes)s OR page.number = 1
ORDER BY m.shard, m.position, m.event_id
