-- Withdraw a publisher that stops or cannot reach its broker: it gets no share.
DELETE FROM {schema}.outbox_publishers WHERE owner = %(owner)s
