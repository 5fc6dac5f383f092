-- Start to build an index in the background, and return the id of the job.
CREATE INDEX ASYNC doctor_scratch_event ON {schema}.doctor_scratch (event_id)
