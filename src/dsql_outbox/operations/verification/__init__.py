"""Compare the stored events with each other: an fsck for the log.

`verifier` reads the tables page by page, each page in one snapshot. `event_check` compares an
event with its headers and entities, `stream_check` the headers of an entity with each other,
and `message_check` a message or a dead letter with its event. `finding` is what they find.
"""
