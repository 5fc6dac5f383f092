-- Return which run has handled a message.
SELECT run_id FROM {schema}.inbox
WHERE consumer = %(consumer)s AND source = %(source)s AND dedupe_id = %(dedupe_id)s
