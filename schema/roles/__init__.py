"""What each database role may do, read from ``schema/grants/``."""
