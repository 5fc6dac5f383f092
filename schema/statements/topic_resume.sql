-- Resume a topic of a target.
DELETE FROM {schema}.outbox_topics WHERE target = %(target)s AND topic = %(topic)s
