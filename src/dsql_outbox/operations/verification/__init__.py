"""Compare the stored events with each other: an fsck for the log.

`verifier` reads the tables page by page, each page in one snapshot. `event_check` compares an
event with its headers and entities, `stream_check` the headers of an entity with each other,
`message_check` a message or a dead letter with its event, and `archive_check` a file with the
rows of its events. `finding` is what they find.
"""
