-- Return the topics of a target that an operator has paused, and why.
SELECT topic, reason FROM {schema}.outbox_topics WHERE target = %(target)s
