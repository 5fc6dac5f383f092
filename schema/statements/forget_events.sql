-- Delete forgotten events, whose bytes were in an archive.
DELETE FROM {schema}.business_events
WHERE id = ANY(%(event_ids)s::text::uuid[]) AND archive = %(number)s
