-- Return the migrations that any version of the library applied to this schema.
SELECT version, name, checksum FROM {schema}.schema_migrations ORDER BY version
