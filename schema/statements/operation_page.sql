-- Read a page of what operators did, the newest first. id null: from the newest of operated_at on.
SELECT operated_at::text || '/' || id AS place, operated_at, verb, object, reason, database_role,
  user_name
FROM {schema}.outbox_operations
WHERE operated_at <= %(operated_at)s::text::timestamptz
  AND (%(id)s::text IS NULL
    OR (operated_at, id) < (%(operated_at)s::text::timestamptz, %(id)s::text::uuid))
ORDER BY operated_at DESC, id DESC
LIMIT %(rows)s
