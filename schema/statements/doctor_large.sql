-- A message that is larger than Aurora DSQL takes.
SELECT octet_length(%(text)s::text)
