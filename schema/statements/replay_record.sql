-- Record the number, the reason and the user of a replay. A concurrent replay of the same
-- event fails here, on the number.
INSERT INTO {schema}.outbox_replays
  (event_id, number, position, reason, replayed_by, replayed_at)
SELECT k.event_id, k.number, k.position, %(reason)s, current_user::text, clock_timestamp()
FROM unnest(%(event_ids)s::text::uuid[], %(numbers)s::text::int[],
    %(positions)s::text::bigint[])
  AS k(event_id, number, position)
