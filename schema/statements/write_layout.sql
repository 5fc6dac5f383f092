-- Return the number of shards, which the lease rows of the default target record, that of all
-- targets, that of the targets that get messages, and of those that get the bytes of the event too.
SELECT (SELECT count(*) FROM {schema}.outbox_leases WHERE shard < 1024) AS shards,
  (SELECT count(*) FROM {schema}.outbox_targets) AS known,
  (SELECT count(*) FROM {schema}.outbox_targets WHERE state <> 'dropped') AS targets,
  (SELECT count(*) FROM {schema}.outbox_targets WHERE state <> 'dropped' AND kind <> 'model')
    AS copies
