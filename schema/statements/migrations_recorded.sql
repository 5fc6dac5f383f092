-- What was applied here, by any version of the library.
SELECT version, name, checksum FROM {schema}.schema_migrations ORDER BY version
