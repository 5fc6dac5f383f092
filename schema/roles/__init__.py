"""The rights of the database roles: writer, publisher, operator, consumer, reader.

``schema/grants/`` holds the rights of each duty, one file per duty. `rights`
parses the files and compares them with the rights that a role has; `grant` gives
the rights to a role.
"""
