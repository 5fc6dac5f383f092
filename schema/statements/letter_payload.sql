-- Return the payload of one dead letter.
SELECT payload FROM {schema}.dead_letters
WHERE event_id = %(event_id)s AND died_at = %(died_at)s::text::timestamptz
