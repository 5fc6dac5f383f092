-- Let publishers relay a target that was opened.
UPDATE {schema}.outbox_targets SET state = 'running'
WHERE name = %(name)s AND state IN ('opening', 'filling')
