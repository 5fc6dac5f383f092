-- Return the payload of one outbox row, or the bytes of its event.
SELECT coalesce(o.payload, b.event_data::text)
FROM {schema}.outbox AS o
LEFT JOIN {schema}.business_events AS b ON b.id = o.event_id
WHERE o.shard = %(shard)s AND o.position = %(position)s AND o.event_id = %(event_id)s
