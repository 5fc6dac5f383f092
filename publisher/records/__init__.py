"""Stored events and entities, read by key for the console. Nothing is changed."""
