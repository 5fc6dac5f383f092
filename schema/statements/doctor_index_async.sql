-- Start to build an index in the background; answers the job's id.
CREATE INDEX ASYNC doctor_scratch_event ON {schema}.doctor_scratch (event_id)
