"""The rules for a file in a place of archives: its name and its size. No I/O."""

import re
from secrets import token_hex
from typing import Final

from dsql_outbox.outbox.errors import ArchiveError

MARKER: Final = "outbox-archive.json"
"""The file that says whose archive a place is."""

_FORM: Final = re.compile(r"[0-9]{9,10}-[0-9a-f]{12}\.(?:jsonl\.zst|manifest\.json)")


def new_file_name(number: int) -> str:
    """A name that no file had before, also if an archive is copied or its number comes again."""
    return f"{number:09}-{token_hex(6)}.jsonl.zst"


def manifest_of(file: str) -> str:
    """The name of the manifest of a file."""
    return file.removesuffix(".jsonl.zst") + ".manifest.json"


def require_name(file: str, place: str) -> None:
    """Raise `ArchiveError` unless a file of an archive may have this name.

    Names come from rows, and a role that may change a row must not reach other files by it.
    """
    if file != MARKER and _FORM.fullmatch(file) is None:
        raise ArchiveError(file, place, "no file of an archive has such a name")


def require_size(file: str, place: str, size: int, most: int) -> None:
    """Raise `ArchiveError` if a file has more bytes than its facts allow."""
    if size > most:
        raise ArchiveError(file, place, f"it has {size:,} bytes, and may have {most:,}")
