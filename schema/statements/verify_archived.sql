-- Return the rows of the events in an archive file, with the columns of verify_events. saved: in the
-- form of created.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
SELECT id, true AS is_due, NULL::text AS data, event_size, fingerprint, event_name, event_type,
  to_char(created_date AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS created,
  subject_type, subject_id, subject_version, shard, touches::text AS touches, archive,
  false AS is_doubled, false AS is_unlisted,
  to_char(saved_date AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS saved
FROM {schema}.business_events WHERE id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
