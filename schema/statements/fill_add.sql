-- Add the fill of a target, which no worker has begun.
INSERT INTO {schema}.outbox_fills
  (target, state, source, epoch, expires_at, event_id, events, messages, forgotten)
VALUES (%(target)s, 'filling', %(source)s, 0, clock_timestamp(), %(event_id)s, 0, 0, 0)
