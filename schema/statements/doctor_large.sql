-- A message that is larger than Aurora DSQL accepts.
SELECT octet_length(%(text)s::text)
