-- Drop a schema whose tables were dropped. Without CASCADE, so that nothing else is lost.
DROP SCHEMA IF EXISTS {schema}
