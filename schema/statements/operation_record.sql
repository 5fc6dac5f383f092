-- Record a call of an operator's verb: who, when, what and why.
INSERT INTO {schema}.outbox_operations
  (operated_at, id, verb, object, reason, database_role, user_name)
VALUES (clock_timestamp(), gen_random_uuid(), %(verb)s, %(object)s, %(reason)s,
  current_user::text, left(%(user)s::text, 128))
