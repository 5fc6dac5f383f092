"""Connection parameters for Aurora DSQL: verified TLS, and an IAM token as the password.

AWS's connector (`dsql_core`) signs the token.
"""

import os
import re
import ssl
import threading
from importlib.util import find_spec
from time import time
from typing import Final
from urllib.parse import unquote

import psycopg
from anyio import to_thread
from psycopg import pq

from dsql_outbox.outbox.errors import MissingExtra, SettingsError

from .address import APPLICATION, DEAD_LINK, ConnectParameters, Endpoint, is_port, session_name
from .fork import call_in_children

_URL: Final = re.compile(
    r"dsql://(?P<user>[^:@/?#]+)"
    r"@(?P<host>[a-z0-9-]+\.dsql(?:-[a-z0-9]+)?\.[a-z0-9-]+\.on\.aws)(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<dbname>[^/?#]*))?",
    re.IGNORECASE,
)
"""A host name with ``dsql-xxxx`` is an AWS PrivateLink endpoint of the cluster."""

_FORM: Final = "dsql://role@cluster.dsql.region.on.aws[:port]/postgres"

_OTHER_FORM: Final = (
    f"the URL of a DSQL database has the form {_FORM}, and no password: IAM signs one"
)

_VPC_ENDPOINT: Final = re.compile(r"\.vpce\.amazonaws\.com", re.IGNORECASE)

_PRIVATE_LINK: Final = (
    "the name of a VPC endpoint does not tell which cluster is meant, which TLS must send (SNI) "
    "and verify: use the cluster's own name for AWS PrivateLink, "
    "dsql://role@cluster.dsql-SUFFIX.region.on.aws/postgres, with private DNS at the endpoint; "
    "SUFFIX is the end of its service's name, com.amazonaws.region.dsql-SUFFIX"
)

_TOKEN_LIFE: Final = 300
"""Seconds. Only the connection attempt needs the token; the session outlives it."""

_REUSE: Final = 60.0
"""Seconds for which a token is reused.

Signing takes up to 100 ms, too much for every connection when many callers retry.
"""

_EXPIRED: Final = "signature expired"

_DIRECT_TLS: Final = 170_000
"""The libpq version from which TLS starts without a request, which saves one round trip."""


class DsqlAddress:
    """The address of an Aurora DSQL cluster: the URL names it.

    The token for role ``admin`` is signed for ``dsql:DbConnectAdmin``, the token
    for any other role for ``dsql:DbConnect``. boto3 finds the AWS credentials. The
    constructor does no I/O; boto3 is imported when the first token is needed.

    Raises `SettingsError` for a URL of another form, and `MissingExtra` if the
    connector is not installed.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None or not is_port(
            found["port"] or "5432"
        ):  # the error must not quote the URL: it may contain a password
            raise SettingsError(_PRIVATE_LINK if _VPC_ENDPOINT.search(url) else _OTHER_FORM)
        if find_spec("dsql_core") is None:
            raise MissingExtra("dsql", "a dsql:// database")
        self._parameters: ConnectParameters = {
            "host": found["host"].lower(),
            "port": int(found["port"] or 5432),
            "user": unquote(found["user"]),
            "dbname": unquote(found["dbname"] or "postgres"),
        }
        self._signed: ConnectParameters = {}
        self._signed_at = 0.0
        self._renew_lock()
        call_in_children(self._renew_lock)

    def _renew_lock(self) -> None:
        # Without the lock, concurrent first signings failed with NoCredentialsError.
        self._lock = threading.Lock()

    def parameters(self, part: str, *, role_path: bool = False) -> ConnectParameters:  # noqa: ARG002 - of the port
        """Return the parameters for libpq, with a token that is at most 60 s old.

        The search path is not set, because only admin can create objects in the
        schema public of a cluster. Raises psycopg's `OperationalError` if AWS
        credentials are missing or refused.
        """
        with self._lock:
            # A token expires by the wall clock. A monotonic clock may stop in a frozen Lambda.
            now = time()
            if not self._signed or not 0 <= now - self._signed_at < _REUSE:
                self._signed, self._signed_at = self._sign(), now
            signed = self._signed
        # The connector has put its own name behind ours, or behind that of PGAPPNAME.
        name = str(signed["application_name"])
        if "PGAPPNAME" not in os.environ:
            name = session_name(part) + name.removeprefix(APPLICATION)
        return signed | {"application_name": name}

    async def parameters_async(self, part: str, *, role_path: bool = False) -> ConnectParameters:  # noqa: ARG002
        """Return the same as `parameters`; a thread finds the credentials and signs."""
        return await to_thread.run_sync(self.parameters, part, abandon_on_cancel=True)

    @property
    def begins_at(self) -> None:
        """None: Aurora DSQL has one isolation level, so no transaction names it."""

    @property
    def locks_at(self) -> None:
        """None: on Aurora DSQL a lock is a change, so it conflicts at COMMIT."""

    @property
    def takes_local_settings(self) -> bool:
        """False: Aurora DSQL refuses all but a few settings."""
        return False

    @property
    def is_dsql(self) -> bool:
        """True."""
        return True

    @property
    def password_may_change(self) -> bool:
        """False: a token is signed here, and `renew` answers for it."""
        return False

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Forget the token, and return True, if the refusal reports that it has expired.

        A token expires early if the clock was set or the machine slept. Aurora DSQL
        answers "access denied"; only the hint of that error names the reason.
        """
        if _EXPIRED not in str(refusal).lower():
            return False
        with self._lock:
            self._signed = {}
        return True

    def _sign(self) -> ConnectParameters:
        # Imported here since they import boto3, which is slow.
        import botocore.exceptions as aws  # type: ignore[import-untyped]  # noqa: PLC0415
        from botocore.httpsession import where  # type: ignore[import-untyped]  # noqa: PLC0415
        from dsql_core import connection_utils  # type: ignore[import-untyped]  # noqa: PLC0415

        # sslrootcert=system fails: the OpenSSL in psycopg's wheel has a default path of
        # certificates that exists on no system.
        roots = ssl.get_default_verify_paths().cafile or where()
        wanted = self._parameters | _tls(roots) | {"token_duration_secs": _TOKEN_LIFE}
        try:
            connector = connection_utils.ConnectionUtilities
            signed: ConnectParameters = connector.parse_properties_and_set_token(
                None, wanted, "psycopg"
            )
        except (aws.BotoCoreError, aws.ClientError) as error:
            raise psycopg.OperationalError(
                f"no IAM token could be signed for {self}: {type(error).__name__}"
            ) from error
        return signed

    @property
    def endpoint(self) -> Endpoint:
        """The host and the port of the cluster, and the database."""
        host, port, dbname = (self._parameters[name] for name in ("host", "port", "dbname"))
        return Endpoint(str(host), int(port), str(dbname))

    @property
    def role(self) -> str:
        """The role of the URL."""
        return str(self._parameters["user"])

    @property
    def host_and_port(self) -> str:
        """The host and the port of the cluster."""
        return f"{self._parameters['host']}:{self._parameters['port']}"

    def __str__(self) -> str:
        return f"{self._parameters['host']}/{self._parameters['dbname']}"


def _tls(roots: str) -> ConnectParameters:
    direct = {"sslnegotiation": "direct"} if pq.version() >= _DIRECT_TLS else {}
    return {
        "sslmode": "verify-full",
        "sslrootcert": roots,
        "application_name": os.environ.get("PGAPPNAME", APPLICATION),
        **DEAD_LINK,
        **direct,
    }
