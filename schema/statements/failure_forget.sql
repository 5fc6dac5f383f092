-- Delete failures: the messages were delivered, or an operator wants them tried again.
DELETE FROM {schema}.outbox_failures f
USING unnest(%(positions)s::text::bigint[], %(event_ids)s::text::uuid[]) AS k(position, event_id)
WHERE f.event_id = k.event_id AND f.position = k.position
