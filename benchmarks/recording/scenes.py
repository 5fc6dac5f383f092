"""The recorded scenes: the command, and the actions meanwhile."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.recording.terminal import Frame, RecordedTerminal

_WIDTH = 112  # columns: the URL of the database fits
_PAUSE = 1.0  # seconds in which nothing is done, to be read


class Programs:
    """The program dsql-outbox in a folder with a short path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        (self.folder / "dsql-outbox").symlink_to(Path(sys.executable).with_name("dsql-outbox"))

    def opened(self, *words: str) -> RecordedTerminal:
        """The command in a terminal, below a prompt that shows it."""
        prompt = f"$ dsql-outbox {' '.join(words)}"
        program = [str(self.folder / "dsql-outbox"), *words]
        return RecordedTerminal(_WIDTH, prompt, program)


def demo(programs: Programs) -> Sequence[Frame]:
    with programs.opened("demo") as terminal:
        _until_end(terminal)
    return terminal.frames


def dev(programs: Programs) -> Sequence[Frame]:
    with programs.opened("dev") as terminal:
        terminal.until(lambda _: "Ctrl-C stops it" in _text(terminal))
        sample = re.findall(r"^  (export .*|dsql-outbox .*)$", _text(terminal), re.MULTILINE)
        lines = [line.rstrip() for line in sample]
        for events in (3, 40, 200):
            terminal.wait(_PAUSE)
            before = _text(terminal)
            _paste([*lines[:-1], lines[-1].replace(" 20 ", f" {events} ")])
            _until_delivered(terminal, before)
        terminal.wait(_PAUSE)
        terminal.press_ctrl_c()
        _until_end(terminal)
    return terminal.frames


def _paste(lines: Sequence[str]) -> None:
    """Run the lines in another shell, as a user pastes them into a second terminal."""
    subprocess.run(["sh", "-e"], input="\n".join(lines).encode(), check=True, capture_output=True)


def _until_end(terminal: RecordedTerminal) -> None:
    if code := terminal.finish():
        raise RuntimeError(f"exit code {code}:\n{_text(terminal)}")


def _text(terminal: RecordedTerminal) -> str:
    return "\n".join(terminal.lines)


def _until_delivered(terminal: RecordedTerminal, before: str) -> None:
    def is_done(_: object) -> bool:
        shown = _text(terminal)
        written = _total("written", shown)
        return shown != before and written == _total("delivered", shown) > 0

    terminal.until(is_done)


def _total(word: str, shown: str) -> int:
    return sum(int(n.replace(",", "")) for n in re.findall(rf"([\d,]+) {word}", shown))


SCENES: dict[str, Callable[[Programs], Sequence[Frame]]] = {"demo": demo, "dev": dev}
