-- End the fill of a target that is dropped: no page of it commits any more.
UPDATE {schema}.outbox_fills SET state = 'dropped' WHERE target = %(target)s AND state = 'filling'
