-- Where all our tables live: on DSQL ordinary roles cannot create in public.
CREATE SCHEMA IF NOT EXISTS {schema}
