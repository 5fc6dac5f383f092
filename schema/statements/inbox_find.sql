-- Return which runs have handled these messages, each named by its source and its id.
SELECT i.source, i.dedupe_id, i.run_id::text
FROM unnest(%(sources)s::text::text[], %(dedupe_ids)s::text::text[]) AS k(source, dedupe_id)
JOIN {schema}.inbox i ON i.consumer = %(consumer)s::text AND i.source = k.source
  AND i.dedupe_id = k.dedupe_id
