-- The server's version, the isolation level of one statement alone, and who asks.
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
  current_setting('transaction_isolation'), current_user::text
