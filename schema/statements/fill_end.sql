-- End a fill. It changes no row if another worker has taken it, or it has ended.
UPDATE {schema}.outbox_fills SET state = 'done', expires_at = clock_timestamp()
WHERE target = %(target)s AND epoch = %(epoch)s AND state = 'filling'
