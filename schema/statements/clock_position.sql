-- Return the database's clock as a position: microseconds since 1970.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
