-- Keeper: Retention, Erasures.
GRANT USAGE ON SCHEMA {schema} TO {role};
-- Forgotten events lose their rows, and erased ones a part. The event that says that an entity was
-- erased is written as by a writer.
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.business_events TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.event_headers TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.entities TO {role};
-- What names an event: it is not forgotten then, and an erased one changes there too.
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox TO {role};
GRANT SELECT ON {schema}.outbox_targets TO {role};
-- A fill reads again what is erased.
GRANT SELECT, UPDATE ON {schema}.outbox_fills TO {role};
GRANT SELECT ON {schema}.outbox_leases TO {role};
GRANT SELECT, UPDATE ON {schema}.outbox_failures TO {role};
GRANT SELECT, UPDATE ON {schema}.dead_letters TO {role};
-- The replays of a forgotten event are forgotten too.
GRANT SELECT, DELETE ON {schema}.outbox_replays TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox_erasures TO {role};
-- The lease, and the counts of the jobs.
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox_jobs TO {role};
-- What was done. It reads no row of it.
GRANT INSERT ON {schema}.outbox_operations TO {role};
