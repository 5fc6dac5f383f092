-- Archivist: Archives.
GRANT USAGE ON SCHEMA {schema} TO {role};
-- Archived events lose their bytes, and forgotten ones their rows.
GRANT SELECT, UPDATE, DELETE ON {schema}.business_events TO {role};
GRANT SELECT, UPDATE, DELETE ON {schema}.event_headers TO {role};
-- What names an event, which is then not archived.
GRANT SELECT ON {schema}.outbox TO {role};
GRANT SELECT ON {schema}.outbox_targets TO {role};
GRANT SELECT ON {schema}.dead_letters TO {role};
-- The replays of a forgotten event are forgotten too.
GRANT SELECT, DELETE ON {schema}.outbox_replays TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.outbox_archives TO {role};
-- The lease, and the counts of the jobs.
GRANT SELECT, INSERT, UPDATE ON {schema}.outbox_jobs TO {role};
-- What was done. It reads no row of it.
GRANT INSERT ON {schema}.outbox_operations TO {role};
