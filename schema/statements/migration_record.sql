-- Remember that this migration was applied. Another process may have been first.
INSERT INTO {schema}.schema_migrations (version, name, checksum, applied_at)
VALUES ({version}, {name}, {checksum}, clock_timestamp())
ON CONFLICT (version) DO NOTHING
