-- Drop a schema whose tables are dropped already: without CASCADE, so that nothing else goes.
DROP SCHEMA IF EXISTS {schema}
