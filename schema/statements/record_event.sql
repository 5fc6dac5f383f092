-- Return one stored event, without its payload. Times are limited to dates that a client
-- can represent.
SELECT event_name, event_type, subject_type, subject_id, subject_version, topic, shard, position,
  greatest('0001-01-02 00:00+00', least('9999-12-30 00:00+00', created_date)) AS created_date,
  greatest('0001-01-02 00:00+00', least('9999-12-30 00:00+00', saved_date)) AS saved_date,
  octet_length(event_data::text) AS bytes, headers::text, touches::text
FROM {schema}.business_events WHERE id = %(event_id)s
