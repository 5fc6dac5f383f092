-- Return the erasures that are not finished, unless an erase job runs.
SELECT r.erased_at::text AS erased_at, r.id
FROM {schema}.outbox_erasures r
WHERE r.finished_at IS NULL AND NOT EXISTS (
  SELECT FROM {schema}.outbox_jobs j
  WHERE j.name = 'life' AND j.verb = 'erase' AND j.owner IS NOT NULL
    AND j.expires_at > clock_timestamp())
ORDER BY r.erased_at, r.id
