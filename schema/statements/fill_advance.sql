-- Record a page of a fill, and that its worker lives. It changes no row if another worker has taken
-- the fill, or it has ended: then the page must not be stored.
UPDATE {schema}.outbox_fills SET event_id = %(reached)s, events = events + %(events)s,
  messages = messages + %(messages)s,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
WHERE target = %(target)s AND epoch = %(epoch)s AND state = 'filling'
