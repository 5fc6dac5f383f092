-- Drop the scratch table of the probes.
DROP TABLE IF EXISTS {schema}.doctor_scratch
