-- Let a target be filled: each event that is not in it yet is committed, and can be read.
UPDATE {schema}.outbox_targets SET state = 'filling' WHERE name = %(target)s AND state = 'opening'
