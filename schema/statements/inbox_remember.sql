-- Remember a message; no row comes back if it was remembered before.
INSERT INTO {schema}.inbox (consumer, source, dedupe_id, run_id, seen_at)
VALUES (%(consumer)s, %(source)s, %(dedupe_id)s, %(run_id)s, clock_timestamp())
ON CONFLICT (consumer, source, dedupe_id) DO NOTHING
RETURNING run_id
