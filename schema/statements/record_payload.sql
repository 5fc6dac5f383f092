-- Return the payload of one stored event.
SELECT event_data::text FROM {schema}.business_events WHERE id = %(event_id)s
