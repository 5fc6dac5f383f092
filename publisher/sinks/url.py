"""Parse the parts that the URLs of brokers have in common: hosts, login, parameters, TLS."""

import errno
import math
import re
import ssl
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.redaction import chain, has_unclear_login
from dsql_outbox.outbox.settings import is_unicode

_NAME: Final = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.)*\w(?:[\w-]{0,61}\w)?\.?")
"""A name that DNS can hold, or an IPv4 address; services of Docker may have a ``_``."""

TIMEOUT: Final = "5"
"""The default of the URL parameter ``timeout``, in seconds."""


def split_hosts(url: str, port: int) -> tuple[str, tuple[str, ...], str]:
    """Split ``scheme://LOGIN@HOST[:PORT][,HOST..][?QUERY]`` into login, hosts and query.

    A host without a port gets `port`. Raises `ValueError` for any other form; its text
    may contain the URL with the password, so do not show it.
    """
    # urlsplit cannot do this: some releases refuse more than one [..] in a URL.
    if has_unclear_login(url):
        raise ValueError(url)
    _, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    login, _, hosts = address.removesuffix("/").rpartition("@")
    return login, tuple(_host(host, port) for host in hosts.split(",")), query


def split_login(login: str) -> tuple[str, str | None]:
    """Split ``USER[:PASSWORD]`` and decode both; the password is None without a colon."""
    user, colon, password = login.partition(":")
    return unquote(user), unquote(password) if colon else None


def parameters(kind: str, query: str, known: Collection[str]) -> dict[str, str]:
    """Parse the query of a URL.

    Raises `SettingsError` for a parameter that is not `known`, and for a value that no file and
    no broker can have as its name.
    """
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(known)):
        names = ", ".join(sorted(known))
        raise SettingsError(f"unknown in {kind}: {', '.join(unknown)}; known are {names}")
    for name, value in given.items():
        if "\0" in value or not is_unicode(value):
            raise SettingsError(f"{name} of {kind} must not hold a NUL or half a surrogate pair")
    return given


def read_text(kind: str, name: str, file: str) -> str:
    """Read the file of the parameter `name`. Raises `SettingsError` if that is not possible."""
    try:
        return read_utf8(file)
    except OSError as error:
        text = f"{name} of {kind}: cannot read {file}: {error.strerror}"
        raise SettingsError(text) from error


def read_utf8(file: str | Path) -> str:
    """Read a file that may hold a secret. Raises `OSError`, which holds none of it."""
    content, fault = Path(file).read_bytes(), "it is not UTF-8"
    with suppress(UnicodeDecodeError):  # which has the content in its `repr`
        text = content.decode()
        if not text.startswith("\ufeff"):
            return text
        fault = "it begins with a byte order mark: save it as UTF-8 without one"
    raise OSError(errno.EILSEQ, fault, str(file))


def password_file(
    kind: str, given: Mapping[str, str], password: str | None, name: str = "password_file"
) -> Path | None:
    """The file of the parameter `name`, or None; each login reads it again.

    Raises `SettingsError` for a file that cannot be read, and beside a password before the @.
    """
    file = given.get(name)
    if file is None:
        return None
    if password is not None:
        raise SettingsError(f"{kind} has one password: text before the @, or {name}")
    read_text(kind, name, file)  # so that a wrong name is reported now
    return Path(file)


def seconds(kind: str, text: str) -> float:
    """Parse a timeout in seconds. Raises `SettingsError` unless it is above 0 and finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingsError(f"timeout of {kind} must be seconds above 0, got {text!r}")
    return number


def is_yes(kind: str, name: str, text: str) -> bool:
    """Parse the parameter `name`. Raises `SettingsError` unless it is yes or no."""
    if text not in {"yes", "no"}:
        raise SettingsError(f"{name} of {kind} must be yes or no, got {text!r}")
    return text == "yes"


def tls_context(
    kind: str, url: str, secure: str, given: Mapping[str, str]
) -> ssl.SSLContext | None:
    """The context of a TLS connection, which checks the server's certificate and host name.

    None if the scheme of the URL is not `secure`. The parameters ``ca``, ``cert`` and ``key`` are
    PEM files. Raises `SettingsError` if a file cannot be used, for a key with a password, and for
    a parameter of TLS without `secure`.
    """
    ca, cert, key = given.get("ca"), given.get("cert"), given.get("key")
    scheme = url.partition(":")[0]
    if scheme != secure:
        if ca or cert or key:
            text = f"ca, cert and key of {kind} need {secure}:// instead of {scheme}://"
            raise SettingsError(text)
        return None
    if (cert is None) != (key is None):
        raise SettingsError(f"cert and key of {kind} go together: the certificate and its key")
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = ", ".join(file for file in (ca, cert, key) if file)
        raise SettingsError(f"{kind}: cannot use the PEM file {files}: {error}") from error
    return context


@contextmanager
def naming_the_authority() -> Generator[None]:
    """Raise `SettingsError` for a `SinkUnavailable` whose cause is an untrusted certificate.

    Waiting does not help then: the URL must name the authority by its parameter ``ca``.
    """
    try:
        yield
    except SinkUnavailable as error:
        if not any(isinstance(each, ssl.SSLCertVerificationError) for each in chain(error)):
            raise
        text = f"{error}; name the authority that signed its certificate by ca=FILE in the URL"
        raise SettingsError(text) from error


def _no_password() -> str:
    # Without this, OpenSSL asks for the password of an encrypted key on the terminal.
    raise ValueError("the key has a password; use a key without one")


def _host(text: str, port: int) -> str:
    host = urlsplit(f"//{text}")
    # urlsplit leaves out line breaks and tabs.
    if not text.isprintable() or not host.hostname or host.path or host.fragment or host.port == 0:
        raise ValueError(text)
    if "[" not in text and not _NAME.fullmatch(host.hostname):
        raise ValueError(text)
    return text if host.port else f"{text.rstrip(':')}:{port}"
