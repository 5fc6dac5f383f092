-- Whether a read returns an outbox row q: its subject and topic may be sent now. `passed` has the subjects
-- whose rows from a position on may not, and `topics` such topics, as JSON objects; an empty topic stands for
-- all. Each is in a subquery, since a plan for all values would parse it for each row. A look-up in them costs
-- the same under every plan, unlike a join with them.
(((SELECT %(passed)s::text::jsonb) ->> (length(q.subject_type) || ' ' || q.subject_type || q.subject_id)
  )::bigint <= q.position IS NOT TRUE
  AND coalesce((SELECT %(topics)s::text::jsonb) ->> q.topic, (SELECT %(topics)s::text::jsonb) ->> '') IS NULL)
