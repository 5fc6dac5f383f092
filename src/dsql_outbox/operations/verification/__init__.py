"""Compare the stored events with each other: an fsck for the log.

`verifier` reads the tables page by page, each page in one snapshot. `event_check` compares an
event with its headers and entities, and `stream_check` the headers of an entity with each
other. `finding` is what they find.
"""
