-- Resume a topic of a target, or with an empty topic what was paused as a whole.
DELETE FROM {schema}.outbox_topics WHERE target = %(target)s AND topic = %(topic)s
