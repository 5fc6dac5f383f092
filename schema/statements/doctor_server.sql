-- Return the version of the server, the isolation level of a single statement, and the
-- current user.
SELECT current_setting('server_version') AS version,
  current_setting('server_version_num')::int AS number,
  current_setting('transaction_isolation') AS isolation, current_user::text AS "user"
