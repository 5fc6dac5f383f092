-- A grant of one column; the scratch table holds nothing that anybody must not read.
GRANT SELECT (shard) ON {schema}.doctor_scratch TO PUBLIC
