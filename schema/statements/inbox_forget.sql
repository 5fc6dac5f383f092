-- Forget these messages of a consumer, each by its source and its id.
DELETE FROM {schema}.inbox i
USING unnest(%(sources)s::text::text[], %(dedupe_ids)s::text::text[]) AS k(source, dedupe_id)
WHERE i.consumer = %(consumer)s::text AND i.source = k.source AND i.dedupe_id = k.dedupe_id
