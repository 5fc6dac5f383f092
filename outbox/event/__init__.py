"""An event: as its producer makes it, and as it is checked.

`event` is the event and its JSON, `json_encoding` encodes its parts. `event_parser` checks it
before it is written, and `json_faults` finds the fault of a text that JSON or the database
does not accept.
`own_headers` checks the headers that an event gives its message, and `causation` adds those of the
message that it follows from. `erasure` is the event without
what is erased of an entity.
"""
