-- Return a row if any event is stored.
SELECT FROM {schema}.business_events LIMIT 1
