"""Read single archived events from the places that a caller names."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from dsql_outbox.outbox.errors import ArchiveError, EventArchived

from .archive_file import ArchiveFile
from .archived_event import ArchivedEvent
from .place import ArchivePlace, open_place

_KEPT: Final = 4
"""Files whose events stay in memory: neighbours in a stream often share one."""


class ArchiveReader:
    """Reads archived events. `places` are tried in order; without any, no event can be read.

    Its methods block, and it is of one thread. Raises `SettingsError` for the name of a place.
    """

    def __init__(self, places: str | Iterable[str] | None) -> None:
        names = [places] if isinstance(places, str) else [*(places or ())]
        self._places: Sequence[ArchivePlace] = [open_place(name) for name in names]
        self._kept: OrderedDict[str, Mapping[UUID, ArchivedEvent]] = OrderedDict()

    def event(self, event_id: UUID, file: ArchiveFile, written_to: str) -> ArchivedEvent:
        """The event from the file that its row names.

        `written_to` is the place in that row: a file is looked for there first if it is one of
        ours, and in the others too, since an archive may be copied. Raises `EventArchived`
        without a place, and `ArchiveError` if no place has the file as it was written.
        """
        if not self._places:
            raise EventArchived(event_id, file.number, file.file, written_to)
        found = self._events(file, written_to).get(event_id)
        if found is None:
            raise ArchiveError(file.file, written_to, f"event {event_id} is not in it")
        return found

    def _events(self, file: ArchiveFile, written_to: str) -> Mapping[UUID, ArchivedEvent]:
        if file.sha256 in self._kept:
            self._kept.move_to_end(file.sha256)
            return self._kept[file.sha256]
        events = {each.id: each for each in self._read(file, written_to)}
        self._kept[file.sha256] = events
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return events

    def _read(self, file: ArchiveFile, written_to: str) -> list[ArchivedEvent]:
        places = sorted(self._places, key=lambda place: place.name != written_to)
        for place in places[:-1]:
            if place.exists(file.file):
                return file.read(place)
        return file.read(places[-1])
