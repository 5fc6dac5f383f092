"""The conflict report of all writers, which `status --conflicts` shows.

`conflict_reader` reads the reports that writer processes stored and adds them up. `remedy` is
the advice for an entity that conflicts often.
"""
