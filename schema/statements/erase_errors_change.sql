-- Put another text in the place of the errors of messages.
UPDATE {schema}.outbox_failures f
SET last_error = %(error)s
FROM unnest(%(shards)s::text::int[], %(positions)s::text::bigint[], %(event_ids)s::text::uuid[])
  AS k(shard, position, event_id)
WHERE f.shard = k.shard AND f.position = k.position AND f.event_id = k.event_id
