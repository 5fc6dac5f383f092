"""The files of archived events: their form, the places they are in, and their reader.

`archived_event` is an event in a file, `archive_file` a file with its manifest. `file_rules` has
the rules for names and sizes, and `compression` compresses the files. `place` is where they are: a
folder, or `s3_place`. `archive_reader` finds an archived event by the row that names its file.

A file holds the bytes of the events that lost them in one transaction. The row in
``outbox_archives`` and the manifest beside the file say what is in it.
"""
