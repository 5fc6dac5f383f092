-- Remember a message; no row comes back if it was remembered before.
INSERT INTO {schema}.inbox (consumer, source, dedupe_id, run_id, seen_at)
VALUES (%(consumer)s::text, %(source)s::text, %(dedupe_id)s::text, %(run_id)s::text::uuid,
  clock_timestamp())
ON CONFLICT (consumer, source, dedupe_id) DO NOTHING
RETURNING consumer, source
