-- Consumer: Inbox, AsyncInbox, `dsql-outbox inbox prune`.
GRANT USAGE ON SCHEMA {schema} TO {role};
-- DELETE is for pruning.
GRANT SELECT, INSERT, DELETE ON {schema}.inbox TO {role};
-- The position that was handled in each subject. It is never deleted.
GRANT SELECT, INSERT, UPDATE ON {schema}.inbox_subjects TO {role};
