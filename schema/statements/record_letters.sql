-- Return the dead letters of some events. All look-ups are by key.
SELECT d.event_id, d.died_at, d.error, d.attempts, d.replays
FROM unnest(%(event_ids)s::text::uuid[]) AS k(id)
JOIN {schema}.dead_letters d ON d.event_id = k.id
ORDER BY d.event_id, d.died_at
