-- Delete the conflict reports that name an id.
DELETE FROM {schema}.outbox_conflicts WHERE position(%(text)s IN report::text) > 0
