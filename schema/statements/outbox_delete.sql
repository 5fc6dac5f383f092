-- Delete exactly the acknowledged rows, by the whole key and never by a range.
DELETE FROM {schema}.outbox o
USING unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[])
  AS k(shard, position, event_id)
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
