-- Aurora DSQL: how the newest build of an index stands; one that goes on comes first,
-- as start times are whole seconds. DSQL forgets a job half an hour after its end.
SELECT status, details FROM sys.jobs
WHERE job_type = 'INDEX_BUILD' AND object_name IN (%(name)s, %(schema)s || '.' || %(name)s)
ORDER BY status IN ('completed', 'failed', 'cancelled', 'canceled'), start_time DESC LIMIT 1
