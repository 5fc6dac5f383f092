-- Fail the transaction of a caller whose event was refused, so that the server accepts nothing
-- more in it, and its COMMIT rolls back. The cast fails, and the server's error is this text.
SELECT 'append_to has failed: roll back this transaction, since its event is missing'::bigint
