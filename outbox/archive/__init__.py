"""The files of archived events: their form, the places they are in, and their reader.

A file holds the bytes of the events that lost them in one transaction. The row in
``outbox_archives`` and the manifest beside the file say what is in it.
"""
