-- What a stored event says of its write: whose it was, and its receipt.
SELECT write_id, fingerprint, position, touches::text
FROM {schema}.business_events WHERE id = %(id)s
