"""Stored events, entities and the state of messages, read by key for the console.

- `records` reads them. It changes nothing.
- `sightings` say where an event is now.
"""
