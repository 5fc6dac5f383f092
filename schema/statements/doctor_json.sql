-- Return a json value unchanged, for a text that jsonb would change or refuse.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id, doc)
VALUES (0, {position}, gen_random_uuid(), %(doc)s::text::json) RETURNING doc::text
