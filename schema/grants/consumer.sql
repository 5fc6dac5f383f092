-- Who handles messages: Inbox, AsyncInbox, `dsql-outbox inbox prune`.
GRANT USAGE ON SCHEMA {schema} TO {role};
-- DELETE is for pruning.
GRANT SELECT, INSERT, DELETE ON {schema}.inbox TO {role};
-- How far it is in each subject. It is never deleted.
GRANT SELECT, INSERT, UPDATE ON {schema}.inbox_subjects TO {role};
