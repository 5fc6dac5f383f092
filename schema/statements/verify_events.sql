-- Return a page of stored events in the order of their ids. It ends before the bytes exceed a
-- limit, but has one event at least. Of an event that is not due, because it was saved before
-- `since`, the bytes are not read. created: as the headers of messages have it. Row by
-- row, since a join would read the whole table for each page.
WITH page AS (
  SELECT id, row_number() OVER ordered AS number,
    sum(greatest(event_size, 0)) OVER ordered AS taken
  FROM (
    SELECT id, event_size FROM {schema}.business_events
    WHERE id >= %(first)s::text::uuid
    ORDER BY id
    LIMIT %(rows)s) AS keys
  WINDOW ordered AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
)
SELECT b.id, due.is_due,
  CASE WHEN due.is_due THEN b.event_data::text END AS data, b.event_size, b.fingerprint,
  b.event_name, b.event_type,
  to_char(b.created_date AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS created,
  b.subject_type, b.subject_id, b.subject_version, b.shard, b.touches::text AS touches,
  b.erased_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM {schema}.outbox_erasures r WHERE r.erased_at = b.erased_at) AS is_unlisted
FROM page
CROSS JOIN LATERAL (
  SELECT id, event_data, event_size, fingerprint, event_name, event_type, created_date, subject_type,
    subject_id, subject_version, shard, touches, erased_at, saved_date
  FROM {schema}.business_events
  WHERE id = page.id
  LIMIT 1) AS b
CROSS JOIN LATERAL (
  SELECT %(since)s::text IS NULL OR b.saved_date >= %(since)s::text::timestamptz AS is_due) AS due
WHERE page.taken <= %(bytes)s OR page.number = 1
ORDER BY page.id
