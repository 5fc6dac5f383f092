-- Return the erasures that are not finished, unless an erase job runs, and those that are not what their
-- events say. An event that was saved before the time up to which events may be forgotten may be missing.
SELECT r.erased_at::text AS erased_at, r.event_id, r.finished_at IS NOT NULL AS is_finished, b.id IS NOT NULL AS is_stored
FROM {schema}.outbox_erasures r
LEFT JOIN LATERAL (
  SELECT id, subject_type, subject_id, subject_version
  FROM {schema}.business_events
  WHERE id = r.event_id
  LIMIT 1) AS b ON true
LEFT JOIN {schema}.outbox_jobs j ON j.name = 'life'
WHERE r.finished_at IS NULL
    AND (j.verb = 'erase' AND j.owner IS NOT NULL AND j.expires_at > clock_timestamp()) IS NOT TRUE
  OR r.finished_at IS NOT NULL AND CASE
    WHEN b.id IS NULL THEN (r.erased_at < j.forgotten_before) IS NOT TRUE
    ELSE r.entity_type <> b.subject_type OR r.version <> b.subject_version
      OR r.entity_id <> b.subject_id END
ORDER BY r.erased_at, r.event_id
