-- Delete exactly these dead letters, by the whole key.
DELETE FROM {schema}.dead_letters d
USING unnest(%(event_ids)s::text::uuid[], %(died_ats)s::text::timestamptz[])
  AS k(event_id, died_at)
WHERE d.event_id = k.event_id AND d.died_at = k.died_at
