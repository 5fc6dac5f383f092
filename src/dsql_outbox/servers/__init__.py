"""PostgreSQL and NATS from wheels, for the demo, `embedded:` databases and tests."""
