-- Operator: `dsql-outbox status`, `schema check`, dead letters, replay.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.schema_migrations TO {role};
GRANT SELECT ON {schema}.outbox_backlog TO {role};
-- A target is a row, and a range of leases: `dsql-outbox targets`.
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox_targets TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox_fills TO {role};
GRANT SELECT, INSERT, DELETE ON {schema}.outbox_leases TO {role};
GRANT SELECT ON {schema}.outbox_publishers TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.outbox_topics TO {role};
-- A blocked message goes on when its failure is deleted, or when it is given up.
GRANT SELECT, DELETE ON {schema}.outbox_failures TO {role};
GRANT SELECT, INSERT, DELETE ON {schema}.dead_letters TO {role};
-- A replay sends stored events again, at new positions of their subjects.
-- UPDATE is for the lock of FOR UPDATE, which keeps the event from being forgotten meanwhile.
GRANT SELECT, UPDATE ON {schema}.business_events TO {role};
GRANT SELECT ON {schema}.event_headers TO {role};
GRANT SELECT ON {schema}.entities TO {role};
GRANT SELECT, INSERT, DELETE ON {schema}.outbox TO {role};
GRANT SELECT, INSERT ON {schema}.outbox_replays TO {role};
-- What was erased, and the last job.
GRANT SELECT ON {schema}.outbox_erasures TO {role};
GRANT SELECT ON {schema}.outbox_jobs TO {role};
-- What operators did. A row is never changed.
GRANT SELECT, INSERT ON {schema}.outbox_operations TO {role};
