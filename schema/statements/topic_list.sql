-- Return the topics that an operator has paused, and why.
SELECT topic, reason FROM {schema}.outbox_topics
