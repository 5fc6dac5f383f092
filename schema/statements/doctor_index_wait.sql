-- Wait until a job has ended.
CALL sys.wait_for_job({job})
