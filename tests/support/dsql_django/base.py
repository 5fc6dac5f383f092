"""AWS's backend for Django on the stand-in for Aurora DSQL, which has no TLS and takes no token."""

from typing import Any

import psycopg
from aurora_dsql_django import base


class DatabaseWrapper(base.DatabaseWrapper):
    """AWS's, but for the connection. The stand-in governs sessions of this name."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return psycopg.connect(**conn_params | {"application_name": "dsql-outbox"})
