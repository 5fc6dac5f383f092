-- Remember messages, each by its source and its id; a row comes back for each that is new.
INSERT INTO {schema}.inbox (consumer, source, dedupe_id, run_id, seen_at)
SELECT %(consumer)s::text, source, dedupe_id, %(run_id)s::text::uuid, clock_timestamp()
FROM unnest(%(sources)s::text::text[], %(dedupe_ids)s::text::text[]) AS k(source, dedupe_id)
ON CONFLICT (consumer, source, dedupe_id) DO NOTHING
RETURNING source, dedupe_id
