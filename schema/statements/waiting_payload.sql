-- Return the payload of one outbox row.
SELECT payload FROM {schema}.outbox
WHERE shard = %(shard)s AND position = %(position)s AND event_id = %(event_id)s
