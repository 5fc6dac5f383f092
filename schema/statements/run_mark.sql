-- Mark a transaction of a run, in the text of its BEGIN. A setting of this kind ends with its
-- transaction, so COMMIT AND CHAIN or ROLLBACK and BEGIN take the mark away, whoever sent them.
-- Aurora DSQL has no such settings.
SELECT set_config('dsql_outbox.run', {run}::text, true)
