-- The outbox rows that name an event b: as it was written and as each of its replays, of all targets.
-- All look-ups are by key. UNION: a row is there once, also if several replays say that it is at
-- their position.
(
  SELECT o.*, g.name AS target, g.state AS target_state, g.first_shard
  FROM (
    SELECT b.position AS position
    UNION
    SELECT r.position FROM {schema}.outbox_replays r WHERE r.event_id = b.id) AS p
  CROSS JOIN {schema}.outbox_targets g
  JOIN {schema}.outbox o
    ON o.shard = g.first_shard::bigint + b.shard AND o.position = p.position AND o.event_id = b.id)
