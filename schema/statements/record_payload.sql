-- Return the bytes of one stored event, for it or for a dead letter.
SELECT event_data::text FROM {schema}.business_events WHERE id = %(event_id)s
