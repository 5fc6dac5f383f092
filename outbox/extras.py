"""The command that installs an extra, which depends on how this package was installed."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from shlex import quote
from typing import Final
from urllib.parse import unquote, urlsplit

_NAME: Final = "dsql-outbox"

_SECRET: Final = re.compile(r"(?<=://)(?!git@)[^/@]*@|[?#].*")
"""A user or token before the host, and a query or fragment, which may contain a signature."""


def install_command(extra: str) -> str:
    """Return the command that adds `extra` to this installation.

    An installer records the URL of a package that does not come from an index (PEP 610). The
    record distinguishes an editable clone, a folder, a file and a repository. Parts of the
    URL that may be secret are omitted.
    """
    try:
        recorded = distribution(_NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # the package was copied without its metadata
        recorded = None
    wanted = f"{_NAME}[{extra}]"
    if recorded is None:
        return f"pip install {quote(wanted)}"
    origin = json.loads(recorded)
    url = _SECRET.sub("", origin["url"])
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install --editable {quote(f'{unquote(urlsplit(url).path)}[{extra}]')}"
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"pip install {quote(f'{wanted} @ {url}')}"
