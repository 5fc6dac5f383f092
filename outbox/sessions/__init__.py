"""The sessions of callers: what `append_to` and `remember` take, each as a `CallerSession`.

A session has a transaction of the caller. A method that is a `Joining` joins it, runs its
statements in it, and after an error fails it, or ends its connection. `joinable` finds the session
of an object, and says which objects are taken. `driver_sessions` has the connections of psycopg 3,
asyncpg and psycopg2, `sqlalchemy_session` SQLAlchemy's objects on each of them, and
`django_session` Django's connection.

The statements are one text for all: each parameter is a text that the statement casts. No
module imports asyncpg, psycopg2, SQLAlchemy or Django before a caller gives one of their objects.
"""
