-- Drop a target: writers insert no more rows for it.
UPDATE {schema}.outbox_targets SET state = 'dropped' WHERE name = %(name)s AND state <> 'dropped'
