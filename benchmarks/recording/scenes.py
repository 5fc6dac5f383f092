"""The recorded scenes: the command, and the actions meanwhile."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.recording.terminal import Frame, Terminal

_WIDTH = 112  # columns: the URL of the database fits
_PAUSE = 1.0  # seconds in which nothing is done, to be read


class Programs:
    """The program dsql-outbox in a folder with a short path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        (self.folder / "dsql-outbox").symlink_to(Path(sys.executable).with_name("dsql-outbox"))

    def opened(self, *words: str) -> Terminal:
        """The command in a terminal, below a prompt that shows it."""
        prompt = f"$ dsql-outbox {' '.join(words)}"
        return Terminal(prompt, [str(self.folder / "dsql-outbox"), *words], _WIDTH)


def demo(programs: Programs) -> Sequence[Frame]:
    with programs.opened("demo") as terminal:
        terminal.until_end()
    return terminal.frames


def dev(programs: Programs) -> Sequence[Frame]:
    with programs.opened("dev") as terminal:
        terminal.until("Ctrl-C ends all")
        sample = re.findall(r"^  (export .*|dsql-outbox .*)$", terminal.text(), re.MULTILINE)
        lines = [line.rstrip() for line in sample]
        for events in (3, 40, 200):
            terminal.wait(_PAUSE)
            before = terminal.text()
            _paste([*lines[:-1], lines[-1].replace(" 20 ", f" {events} ")])
            _until_delivered(terminal, before)
        terminal.wait(_PAUSE)
        terminal.press("\x03")
        terminal.until_end()
    return terminal.frames


def _paste(lines: Sequence[str]) -> None:
    """Run the lines in another shell, as a user pastes them into a second terminal."""
    subprocess.run(["sh", "-e"], input="\n".join(lines).encode(), check=True, capture_output=True)


def _until_delivered(terminal: Terminal, before: str) -> None:
    def is_done() -> bool:
        shown = terminal.text()
        written = _total("written", shown)
        return shown != before and written == _total("delivered", shown) > 0

    terminal.until_true(is_done)


def _total(word: str, shown: str) -> int:
    return sum(int(n.replace(",", "")) for n in re.findall(rf"([\d,]+) {word}", shown))


SCENES: dict[str, Callable[[Programs], Sequence[Frame]]] = {"demo": demo, "dev": dev}
