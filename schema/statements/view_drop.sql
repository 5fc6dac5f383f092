-- Drop one view of a schema that is removed as a whole.
DROP VIEW IF EXISTS {schema}.{relation}
