-- Writer: Writer, AsyncWriter, `dsql-outbox write`.
GRANT USAGE ON SCHEMA {schema} TO {role};
-- Stores events, and reads them: the look-up after a lost connection, stream().
GRANT SELECT, INSERT ON {schema}.business_events TO {role};
GRANT SELECT, INSERT ON {schema}.event_headers TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.entities TO {role};
-- Not SELECT: it reads no message, not even its own.
GRANT INSERT ON {schema}.outbox TO {role};
-- The backlog alarm: shard, position and age, no payload.
GRANT SELECT ON {schema}.outbox_backlog TO {role};
-- The number of shards.
GRANT SELECT ON {schema}.outbox_leases TO {role};
-- Which targets get a message of each event.
GRANT SELECT ON {schema}.outbox_targets TO {role};
