"""The transactional outbox for Amazon Aurora DSQL and PostgreSQL."""
