"""Which command installs an extra today: it depends on where this package came from."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from shlex import quote
from typing import Final
from urllib.parse import unquote, urlsplit

_NAME: Final = "dsql-outbox"

_SECRET: Final = re.compile(r"(?<=://)(?!git@)[^/@]*@|[?#].*")
"""A user or token in front of the host, and a query that may be a signature."""


def install_command(extra: str) -> str:
    """The command that adds `extra` to this installation.

    An installer records the URL of what it did not take from an index (PEP 610),
    so an editable clone, a folder, a file and a repository are told apart. What
    may be a secret in such a URL is left out.
    """
    try:
        recorded = distribution(_NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # copied without its metadata
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
