-- The database's clock in seconds since 1970; also the smallest round trip that there is.
SELECT extract(epoch FROM clock_timestamp())::float8
