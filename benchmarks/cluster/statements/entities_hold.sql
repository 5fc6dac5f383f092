-- Change nothing in every entity of the scratch schema, in a transaction that is rolled back
-- later: on PostgreSQL, the writes of the doctor wait for it and then meet each other.
UPDATE {schema}.entities SET version = version
