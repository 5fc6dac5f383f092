"""Bring the tables into a database, or up to this version."""
