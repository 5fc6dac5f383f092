-- Create the schema of all our tables: on DSQL, ordinary roles cannot create in public.
CREATE SCHEMA IF NOT EXISTS {schema}
