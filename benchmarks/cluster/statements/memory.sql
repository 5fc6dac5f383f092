-- Sort {rows} rows of about 1 kB each, which must not take more than 128 MiB on Aurora DSQL.
SELECT count(*) FROM (
  SELECT n, repeat(n::text, 200) AS word FROM generate_series(1, {rows}) AS n ORDER BY word OFFSET 1
) AS sorted
