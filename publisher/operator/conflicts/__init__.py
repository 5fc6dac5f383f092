"""The conflict report of all writers: what `status --conflicts` shows.

`conflict_reader` reads the reports that writer processes stored and adds them up.
`remedy` says what to do about an entity that conflicts often.
"""
