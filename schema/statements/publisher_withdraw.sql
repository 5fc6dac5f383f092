-- A publisher stops, or cannot reach its broker: the shares are made without it.
DELETE FROM {schema}.outbox_publishers WHERE owner = %(owner)s
