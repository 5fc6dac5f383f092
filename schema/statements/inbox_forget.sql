-- Forget these ids of a consumer.
DELETE FROM {schema}.inbox
WHERE consumer = %(consumer)s AND dedupe_id = ANY(%(dedupe_ids)s::text::text[])
