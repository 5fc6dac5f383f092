-- Withdraw a publisher that stops or makes no progress: it gets no share.
DELETE FROM {schema}.outbox_publishers WHERE owner = %(owner)s
