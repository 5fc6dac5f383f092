-- Aurora DSQL: return the state of the newest build of an index. A running build comes
-- first, because start times are whole seconds. DSQL forgets a job 30 minutes after its end.
SELECT status, details FROM sys.jobs
WHERE job_type = 'INDEX_BUILD' AND object_name IN (%(name)s, %(schema)s || '.' || %(name)s)
ORDER BY status IN ('completed', 'failed', 'cancelled', 'canceled'), start_time DESC LIMIT 1
