-- Leave a fill to the next worker at once.
UPDATE {schema}.outbox_fills SET expires_at = clock_timestamp()
WHERE target = %(target)s AND epoch = %(epoch)s AND state = 'filling'
