"""Stored events, entities and where messages are, read by key for a person who looks.

- `records` reads them. It changes nothing.
- `sightings` are the answers to "where is this event now".
"""
