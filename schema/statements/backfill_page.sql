-- One page of a backfill, in a transaction of its own: the UPDATE of the migration,
-- limited to the keys between two bounds.
UPDATE {schema}.{table} SET {assignments}
WHERE ({condition}) AND {above} AND ({key}) <= ({last})
