-- Reader, changes nothing: `dsql-outbox console`, `status`, lists and searches.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.outbox_backlog TO {role};
GRANT SELECT ON {schema}.outbox_leases TO {role};
GRANT SELECT ON {schema}.outbox_targets TO {role};
GRANT SELECT ON {schema}.outbox_fills TO {role};
GRANT SELECT ON {schema}.outbox_publishers TO {role};
GRANT SELECT ON {schema}.outbox_topics TO {role};
GRANT SELECT ON {schema}.outbox_failures TO {role};
GRANT SELECT ON {schema}.dead_letters TO {role};
GRANT SELECT ON {schema}.business_events TO {role};
GRANT SELECT ON {schema}.event_headers TO {role};
GRANT SELECT ON {schema}.entities TO {role};
GRANT SELECT ON {schema}.outbox TO {role};
GRANT SELECT ON {schema}.outbox_replays TO {role};
GRANT SELECT ON {schema}.outbox_operations TO {role};
GRANT SELECT ON {schema}.outbox_erasures TO {role};
GRANT SELECT ON {schema}.outbox_jobs TO {role};
