-- The replays of one event, and whose they were.
SELECT number, reason, replayed_by, replayed_at FROM {schema}.outbox_replays
WHERE event_id = %(event_id)s
ORDER BY number
