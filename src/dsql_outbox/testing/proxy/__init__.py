"""A proxy in front of PostgreSQL that breaks things on purpose."""
