-- Forget a file that holds no event any more.
DELETE FROM {schema}.outbox_archives WHERE number = %(number)s AND file = %(old)s
