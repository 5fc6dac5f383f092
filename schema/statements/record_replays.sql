-- Return the replays of an event.
SELECT number, reason, replayed_by, replayed_at
FROM {schema}.outbox_replays WHERE event_id = %(event_id)s ORDER BY number
