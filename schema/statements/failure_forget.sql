-- Delete failures: the messages were delivered, or an operator wants them tried again.
DELETE FROM {schema}.outbox_failures f
USING unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[])
  AS k(shard, position, event_id)
WHERE f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
