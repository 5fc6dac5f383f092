-- Resume a topic.
DELETE FROM {schema}.outbox_topics WHERE topic = %(topic)s
