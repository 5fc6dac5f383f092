-- Drop an index whose build has failed, so that it can be built again.
DROP INDEX IF EXISTS {schema}.{index}
