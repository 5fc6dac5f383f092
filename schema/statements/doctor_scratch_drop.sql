-- Take the scratch table of the probes away.
DROP TABLE IF EXISTS {schema}.doctor_scratch
