-- Record an erasure in the transaction of the event that says so.
INSERT INTO {schema}.outbox_erasures (erased_at, entity_type, entity_id, event_id, version,
  reason, database_role, user_name)
VALUES (clock_timestamp(), %(entity_type)s, %(entity_id)s, %(event_id)s, %(version)s,
  %(reason)s, current_user::text, left(%(user)s::text, 128))
