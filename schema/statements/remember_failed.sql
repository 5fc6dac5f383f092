-- Fail the transaction of a caller whose message was not remembered, so that the server accepts
-- nothing more in it, and its COMMIT rolls back. The cast fails, and the server's error is this text.
SELECT 'remember has failed: roll back this transaction, since its message is not remembered'::bigint
