-- Return the last key of the next page of a backfill. No row: no page is left.
SELECT {key} FROM (
  SELECT {key} FROM {schema}.{table} WHERE {above} ORDER BY {key} LIMIT {rows}
) AS page
ORDER BY {descending} LIMIT 1
