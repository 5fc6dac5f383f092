-- Return a row if a consumer has handled any message.
SELECT FROM {schema}.inbox LIMIT 1
