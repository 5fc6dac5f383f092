-- Return the database's clock in seconds since 1970. Also the shortest round trip.
SELECT extract(epoch FROM clock_timestamp())::float8
