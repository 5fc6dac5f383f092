-- Return the targets that need the bytes of every event.
SELECT name, state FROM {schema}.outbox_targets WHERE state IN ('opening', 'filling')
