-- A publisher is alive and its broker can be reached: it counts for the shares.
INSERT INTO {schema}.outbox_publishers (owner, seen_at)
VALUES (%(owner)s, clock_timestamp())
ON CONFLICT (owner) DO UPDATE SET seen_at = EXCLUDED.seen_at
