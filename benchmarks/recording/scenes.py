"""The recorded scenes: the command, and the actions meanwhile."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.recording.terminal import Frame, RecordedTerminal

_WIDTH = 112  # columns: the URL of the database fits


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


def _until_end(terminal: RecordedTerminal) -> None:
    if code := terminal.finish():
        raise RuntimeError(f"exit code {code}:\n{_text(terminal)}")


def _text(terminal: RecordedTerminal) -> str:
    return "\n".join(terminal.lines)


SCENES: dict[str, Callable[[Programs], Sequence[Frame]]] = {"demo": demo}
