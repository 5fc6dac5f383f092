-- Publisher: Publisher, `dsql-outbox publish`. It reads the messages on their way to the
-- broker, not the stored events and entities.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, DELETE ON {schema}.outbox TO {role};
GRANT SELECT ON {schema}.outbox_backlog TO {role};
-- The bytes of the messages that only name their event.
GRANT SELECT ON {schema}.outbox_payloads TO {role};
GRANT SELECT, UPDATE ON {schema}.outbox_leases TO {role};
GRANT SELECT ON {schema}.outbox_targets TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.outbox_publishers TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.outbox_failures TO {role};
-- The topics that an operator has paused.
GRANT SELECT ON {schema}.outbox_topics TO {role};
-- It adds dead letters, and never reads or deletes them.
GRANT INSERT ON {schema}.dead_letters TO {role};
-- The number of dead letters, for its metrics.
GRANT SELECT ON {schema}.dead_letter_times TO {role};
-- When old events were last forgotten, for its metrics.
GRANT SELECT ON {schema}.outbox_jobs TO {role};
