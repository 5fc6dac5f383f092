-- Return which run has handled a message.
SELECT run_id FROM {schema}.inbox
WHERE consumer = %(consumer)s::text AND source = %(source)s::text
  AND dedupe_id = %(dedupe_id)s::text
