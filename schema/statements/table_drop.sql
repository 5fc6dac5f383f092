-- Drop one table of a schema that is removed as a whole.
DROP TABLE IF EXISTS {schema}.{relation}
