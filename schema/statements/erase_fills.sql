-- Take the fills from their workers. One may have read what is erased now: its page is not stored any
-- more, and is read again. Pages that were stored before are seen by the statements after this one.
UPDATE {schema}.outbox_fills SET epoch = epoch + 1, expires_at = clock_timestamp()
WHERE state = 'filling'
