-- Return which events an outbox row or a dead letter names.
-- The array is in a subquery: its length would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
SELECT b.id
FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS e(id)
JOIN {schema}.business_events b ON b.id = e.id
WHERE EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.event_id = b.id)
  OR EXISTS (SELECT FROM {event_messages} AS m WHERE m.target_state <> 'dropped')
