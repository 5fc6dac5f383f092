"""Parse the parts that the URLs of brokers have in common: hosts, login, parameters, TLS."""

import errno
import math
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.redaction import chain, has_unclear_login
from dsql_outbox.outbox.settings import is_unicode

_NAME: Final = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.)*\w(?:[\w-]{0,61}\w)?\.?")
"""A name that DNS can hold, or an IPv4 address; services of Docker may have a ``_``."""

_WHOLE: Final = re.compile(r"\d{1,15}", re.ASCII).fullmatch


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


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a URL. A subclass has a field for each, whose type says how it is read.

    A bool is yes or no, a float seconds above 0, an int a whole number in the range of its `Meta`,
    a Path a file that can be read, and a str any text.
    """

    timeout: float = 5.0
    """Seconds that a call may take."""


class TlsParameters(Parameters, frozen=True, kw_only=True):
    """Those of a URL that may ask for TLS: PEM files."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


P = TypeVar("P", bound=Parameters)


def read_parameters(kind: str, query: str, form: type[P]) -> P:
    """Read the query of a URL.

    Raises `SettingsError`, which names the parameter: one that `form` does not have, a value that
    is not of its type, and one that no file and no broker can have as its name.
    """
    given = dict(parse_qsl(query, keep_blank_values=True))
    known = get_type_hints(form, include_extras=True)
    if unknown := sorted(given.keys() - known.keys()):
        names = ", ".join(sorted(known))
        raise SettingsError(f"unknown in {kind}: {', '.join(unknown)}; known are {names}")
    for name, value in given.items():
        if "\0" in value or not is_unicode(value):
            raise SettingsError(f"{name} of {kind} must not hold a NUL or half a surrogate pair")
    read: dict[str, Any] = {name: _read(kind, name, known[name], given[name]) for name in given}
    return form(**read)


def _read(kind: str, name: str, hint: Any, text: str) -> object:
    """Read a parameter as its type says."""
    more: list[Any] = []
    while args := [each for each in get_args(hint) if each is not type(None)]:
        hint, *more = args
    if hint is bool and text in {"yes", "no"}:
        return text == "yes"
    if hint is float and (seconds := _seconds(text)):
        return seconds
    if hint is Path:
        read_text(kind, name, text)  # so that a wrong name is reported now
        return Path(text)
    if hint is str:
        return text
    least, most = (more[0].ge, more[0].le) if more else (0, None)
    if hint is int and _WHOLE(text) and least <= int(text) <= (most or math.inf):
        return int(text)
    whole = f"{least} or more" if most is None else f"{least} to {most}"
    rule = {bool: "yes or no", float: "seconds above 0", int: whole}[hint]
    raise SettingsError(f"{name} of {kind} must be {rule}, got {text!r}")


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def read_text(kind: str, name: str, file: str | Path) -> str:
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


def refuse_two_passwords(kind: str, password: str | None, file: Path | None) -> None:
    """Raise `SettingsError` for a password before the @ beside ``password_file``."""
    if password is not None and file is not None:
        raise SettingsError(f"{kind} has one password: text before the @, or password_file")


def tls_context(kind: str, url: str, secure: str, given: TlsParameters) -> ssl.SSLContext | None:
    """The context of a TLS connection, which checks the server's certificate and host name.

    None if the scheme of the URL is not `secure`. The parameters ``ca``, ``cert`` and ``key`` are
    PEM files. Raises `SettingsError` if a file cannot be used, for a key with a password, and for
    a parameter of TLS without `secure`.
    """
    ca, cert, key = given.ca, given.cert, given.key
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
