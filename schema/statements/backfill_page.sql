-- One page of a backfill, a transaction of its own: the migration's UPDATE between
-- two keys.
UPDATE {schema}.{table} SET {assignments}
WHERE ({condition}) AND {above} AND ({key}) <= ({last})
