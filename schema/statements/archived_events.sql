-- Return the files of events whose bytes are in an archive.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT b.id, a.place, a.number, a.file, a.events, a.first_id, a.last_id, a.oldest_at, a.newest_at,
  a.file_size, a.sha256, a.content_sha256
FROM {schema}.business_events b
JOIN {schema}.outbox_archives a ON a.number = b.archive
WHERE b.id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
