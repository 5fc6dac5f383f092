-- Wait for a job to end.
CALL sys.wait_for_job({job})
