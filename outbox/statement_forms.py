"""A database without data-modifying CTEs: how it says so."""

from typing import Final

from psycopg import errors

NO_SUCH_FORM: Final = (errors.FeatureNotSupported, errors.SyntaxError, errors.DatatypeMismatch)
"""What it answers to a probe: the statement itself, put so that it changes nothing.

Never asked of a live statement: "cached plan must not change result type" is 0A000 too.
"""
