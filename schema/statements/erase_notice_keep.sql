-- Give the messages of the event that says so bytes of their own: the pseudonym in the stored ones
-- would tell a consumer nothing.
UPDATE {schema}.outbox o
SET payload = %(data)s::text, payload_size = octet_length(%(data)s::text)
FROM unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[])
  AS k(shard, position, event_id)
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
