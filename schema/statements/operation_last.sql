-- Return when a verb was last called, of an object or (null) of any, among the newest {limit} calls of
-- operators; null: in none of them.
SELECT max(n.operated_at) AS operated_at
FROM (SELECT operated_at, verb, object FROM {schema}.outbox_operations
  ORDER BY operated_at DESC, id DESC LIMIT {limit}) AS n
WHERE n.verb = %(verb)s AND (%(object)s::text IS NULL OR n.object = %(object)s::text)
