"""A place of archives: which files it opens, for whom, and of what size."""

import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from dsql_outbox.outbox import ArchiveError, SettingsError
from dsql_outbox.outbox.archive import archive_file
from dsql_outbox.outbox.archive.archive_file import ArchiveFile, read_manifest, remove_file
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.file_rules import MARKER, new_file_name
from dsql_outbox.outbox.archive.place import ArchivePlace, claim, open_place, open_recorded
from dsql_outbox.outbox.archive.s3_place import S3Place

FILE = "000000007-0123456789ab.jsonl.zst"
STORE = uuid4()
LIMIT = 1 << 20
BAD_NAMES = (
    "important.txt",
    "../important.txt",
    "a/../../important.txt",
    ".",
    "",
    f"{FILE}\n",
    f"x{FILE}",
    f"../archive/{FILE}",
    FILE.upper(),
    "00000007-0123456789ab.jsonl.zst",
    "000000007-0123456789ab.jsonl.zst.part",
    "000000007-0123456789a\N{SUPERSCRIPT TWO}.jsonl.zst",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the place; it exists."""
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def place(folder: Path) -> ArchivePlace:
    return open_place(str(folder))


@pytest.fixture
def _umask() -> Iterator[None]:
    """The umask that most systems have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def events(count: int) -> list[ArchivedEvent]:
    return [
        ArchivedEvent(
            id=UUID(int=n),
            saved_date=datetime(2026, 1, 2, tzinfo=UTC),
            fingerprint="00",
            event='{"name": "Zo\u00eb"}',
            headers=None,
            touches="[]",
            header_data=(None,),
        )
        for n in range(count)
    ]


def written(place: ArchivePlace, count: int = 3) -> ArchiveFile:
    facts, data = ArchiveFile.of(7, FILE, events(count))
    facts.write(place, STORE, data)
    return facts


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BAD_NAMES, "ABSOLUTE"])
@pytest.mark.parametrize("act", ["read", "write", "remove", "exists", "remove_file", "facts"])
def test_a_name_that_no_file_of_an_archive_has_is_refused(
    folder: Path, place: ArchivePlace, name: str, act: str
) -> None:
    victim = folder.parent / "important.txt"
    inside = folder / "important.txt"
    victim.write_text("mine")
    inside.write_text("mine")
    name = str(victim) if name == "ABSOLUTE" else name
    facts = ArchiveFile.of(7, name, events(1))[0]
    # Without a client, any request to the server fails in another way.
    for each in (place, S3Place("s3://b/x", None, "b", "x/")):
        acts: dict[str, Callable[[], object]] = {
            "read": lambda each=each: each.read(name, LIMIT),  # type: ignore[misc]
            "write": lambda each=each: each.write(name, b""),  # type: ignore[misc]
            "remove": lambda each=each: each.remove(name),  # type: ignore[misc]
            "exists": lambda each=each: each.exists(name),  # type: ignore[misc]
            "remove_file": lambda each=each: remove_file(each, name),  # type: ignore[misc]
            "facts": lambda each=each: facts.read(each),  # type: ignore[misc]
        }
        with pytest.raises(ArchiveError, match="no file of an archive has such a name"):
            acts[act]()
    assert (victim.read_text(), inside.read_text()) == ("mine", "mine")
    assert [*folder.iterdir()] == [inside]


@pytest.mark.parametrize("number", [1, 999_999_999, 2**31 - 1])
def test_each_number_of_a_row_makes_a_name_that_is_taken(place: ArchivePlace, number: int) -> None:
    facts, data = ArchiveFile.of(number, new_file_name(number), events(2))
    facts.write(place, STORE, data)
    assert facts.read(place) == events(2)
    assert read_manifest(place, facts.file) == (STORE, facts)
    facts.remove(place)


def test_the_manifest_of_another_file_is_not_removed_as_a_file(place: ArchivePlace) -> None:
    facts = written(place)
    with pytest.raises(ArchiveError):
        remove_file(place, facts.manifest)
    assert read_manifest(place, facts.file) == (STORE, facts)


@pytest.mark.parametrize(
    "name",
    [
        *("a\0b", "\udc80", "", "s3:/x", "http://x", "file:///x", "s3://B"),
        *("file:arch", "gs:a/b", "S3:x"),
    ],
)
def test_what_cannot_be_the_name_of_a_place_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        open_place(name)


def test_a_folder_may_have_a_colon_behind_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "file:arch"
    assert open_place(str(folder)).name == str(folder)
    assert open_place("./a:b").name == str(Path("a:b").resolve())


def test_a_folder_of_links_in_a_circle_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for asked in (
        lambda: open_place(str(tmp_path / "a")).read(FILE, LIMIT),
        lambda: open_place(str(tmp_path / "a")).write(FILE, b""),
    ):
        with pytest.raises((SettingsError, ArchiveError)):
            asked()


# --- what is opened ---------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_bytes(b"secret")
    path.symlink_to(secret)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [_fifo, _link, _endless, _socket, Path.mkdir])
def test_only_a_regular_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], None]
) -> None:
    folder = tmp_path_factory.mktemp("a")  # short: the name of a socket has 108 bytes at most
    place = open_place(str(folder))
    for name in (FILE, MARKER):
        make(folder / name)
        assert place.exists(name)
        with pytest.raises(ArchiveError):
            place.read(name, LIMIT)
    with pytest.raises(ArchiveError):
        claim(place, STORE, is_known=True)


@pytest.mark.parametrize("name", [MARKER, FILE])
def test_a_link_that_somebody_has_put_is_not_followed_by_a_write(
    folder: Path, place: ArchivePlace, name: str
) -> None:
    victim = folder.parent / "important.txt"
    victim.write_text("mine")
    (folder / f"{name}.part").symlink_to(victim)
    (folder / name).symlink_to(victim)
    place.write(name, b"ours")
    assert victim.read_text() == "mine"
    assert not (folder / name).is_symlink()
    assert place.read(name, 4) == b"ours"
    assert [each.name for each in folder.iterdir()] == [name]


@pytest.mark.usefixtures("_umask")
def test_only_its_owner_may_read_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    place = open_place(str(folder))
    claim(place, STORE, is_known=False)
    written(place)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}
    assert len([*folder.iterdir()]) == 3


@pytest.mark.usefixtures("_umask")
def test_a_folder_that_exists_keeps_its_mode(folder: Path, place: ArchivePlace) -> None:
    folder.chmod(0o750)
    written(place)
    assert folder.stat().st_mode & 0o777 == 0o750


# --- sizes ------------------------------------------------------------------------------------


def test_a_file_that_is_larger_than_its_facts_is_not_read(
    folder: Path, place: ArchivePlace
) -> None:
    facts = written(place)
    with (folder / FILE).open("ab") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ArchiveError, match="1,099,511,627,776 bytes, and may have"):
        facts.read(place)
    for name in (MARKER, facts.manifest):
        (folder / name).touch()
        os.truncate(folder / name, 1 << 40)
    with pytest.raises(ArchiveError, match="may have 65,536"):
        read_manifest(place, FILE)
    with pytest.raises(ArchiveError, match="may have 65,536"):
        claim(place, STORE, is_known=False)


def test_a_row_that_allows_any_size_allows_no_more_than_a_file_has(
    folder: Path, place: ArchivePlace
) -> None:
    (folder / FILE).touch()
    os.truncate(folder / FILE, 1 << 40)
    facts = ArchiveFile.of(7, FILE, events(1))[0]
    for size in (1 << 62, -1):
        changed = msgspec.structs.replace(facts, file_size=size)
        with pytest.raises(ArchiveError, match="and may have"):
            changed.read(place)


@pytest.mark.parametrize("limit", [0, -1])
def test_what_unpacks_to_more_than_a_file_has_is_refused(
    place: ArchivePlace, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """The row, the manifest and the hashes are right, as of one who may write them all."""
    facts = written(place, 300)
    content = sum(len(archive_file.encode_lines([each])) for each in events(300))
    assert facts.file_size < content / 10
    monkeypatch.setattr(archive_file, "MAX_CONTENT", content + limit)
    if limit == 0:
        assert facts.read(place) == events(300)
        return
    with pytest.raises(ArchiveError, match="its content has more than"):
        facts.read(place)


@pytest.mark.parametrize("change", [lambda it: it[:-1], lambda it: it + it, lambda it: it + b"?"])
def test_a_file_is_one_whole_frame(
    folder: Path, place: ArchivePlace, change: Callable[[bytes], bytes]
) -> None:
    facts = written(place)
    data = change((folder / FILE).read_bytes())
    (folder / FILE).write_bytes(data)
    forged = msgspec.structs.replace(facts, file_size=len(data), sha256=sha256(data).hexdigest())
    with pytest.raises(ArchiveError, match="cannot be read"):
        forged.read(place)


# --- manifests and markers --------------------------------------------------------------------


def test_a_manifest_with_any_bit_flipped_is_read_or_named(
    folder: Path, place: ArchivePlace
) -> None:
    facts = written(place)
    path = folder / facts.manifest
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read_manifest(place, FILE)
        except ArchiveError as error:
            assert error.file == facts.manifest  # noqa: PT017 - not each one must be refused
            refused += 1
    assert refused > len(whole)


@pytest.mark.parametrize("text", [b"\xff", b'{"a":' + b"[" * 50_000, b"1e999", b"", b"null"])
def test_a_marker_that_is_none_is_named(folder: Path, place: ArchivePlace, text: bytes) -> None:
    (folder / MARKER).write_bytes(text)
    with pytest.raises(ArchiveError, match="does not say whose archive it is"):
        claim(place, STORE, is_known=False)


# --- places that rows name ------------------------------------------------------------------


def test_a_place_in_a_row_is_opened_if_it_was_given_or_has_our_marker(tmp_path: Path) -> None:
    ours, foreign, empty, unmarked = (tmp_path / name for name in ("o", "f", "e", "u"))
    claim(open_place(str(ours)), STORE, is_known=False)
    claim(open_place(str(foreign)), uuid4(), is_known=False)
    empty.mkdir()
    for folder in (foreign, unmarked):
        open_place(str(folder)).write(FILE, b"x")

    found = open_recorded(str(ours), FILE, (), STORE)
    assert found is not None
    assert found.name == str(ours)
    assert open_recorded(str(empty), FILE, (), STORE) is None
    with pytest.raises(ArchiveError, match="no such folder: is it mounted"):
        open_recorded(str(tmp_path / "none"), FILE, (), STORE)
    for folder in (foreign, unmarked):
        with pytest.raises(ArchiveError, match="name it in the command") as raised:
            open_recorded(str(folder), FILE, (), STORE)
        assert raised.value.place == str(folder)
        given = open_place(str(folder))
        assert open_recorded(str(folder), FILE, [given], STORE) is given


@pytest.mark.parametrize("region", ["", "&region=eu-west-1", "&region=x.example/"])
def test_no_row_chooses_the_server_of_a_place(region: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        name = f"s3://bucket/x?endpoint=http://127.0.0.1:{server.getsockname()[1]}{region}"
        with pytest.raises(ArchiveError, match="endpoint; if it is an archive of this outbox"):
            open_recorded(name, FILE, (), STORE)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("name", ["http://x", "s3://B", "", "a\0b", "s3://bucket/x?region=a/b.c"])
def test_what_cannot_be_a_place_in_a_row_is_named(name: str) -> None:
    with pytest.raises(ArchiveError):
        open_recorded(name, FILE, (), STORE)
