-- The last key of the next page of a backfill. No row: there are no more pages.
SELECT {key} FROM (
  SELECT {key} FROM {schema}.{table} WHERE {above} ORDER BY {key} LIMIT {rows}
) AS page
ORDER BY {descending} LIMIT 1
