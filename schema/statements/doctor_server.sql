-- Return the version of the server, the isolation level of a single statement, and the
-- current user.
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
  current_setting('transaction_isolation'), current_user::text
