"""A disk whose power can be cut: what was not synced is gone, as on a real one."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN of linux/ext4.h
_NO_FLUSH: Final = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: neither data nor the journal


class MissingDisk(Exception):
    """This machine cannot make one; the text says what it lacks."""


class Disk:
    """A file system in a file, mounted at `folder`."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def sync(self) -> None:
        """Write all that waits in memory, as the system does by itself now and then."""
        subprocess.run(["sync", "-f", self.folder], check=True)

    def cut_power(self) -> None:
        """Lose what is not on the disk, and mount it again. Kill its users before."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(handle)
        subprocess.run(["umount", self.folder], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, which recovers its journal."""
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)


@contextmanager
def disk(image: Path, folder: Path, megabytes: int = 256) -> Generator[Disk]:
    """A new disk for a while. Raises `MissingDisk`."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        raise MissingDisk("a disk without power needs Linux, root, and a loop device")
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    made = Disk(image, folder)
    made.mount()
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
