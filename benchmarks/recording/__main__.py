"""Record real runs of commands as animated SVG pictures: docs/pictures/*.svg."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.recording.animated_svg import animated
from benchmarks.recording.scenes import SCENES, Programs

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def main() -> None:
    names = sys.argv[1:] or list(SCENES)
    with TemporaryDirectory(prefix="outbox-") as folder:
        programs = Programs(Path(folder))
        for name in names:
            frames = SCENES[name](programs)
            picture = PICTURES / f"{name}.svg"
            picture.write_text(animated(frames, f"dsql-outbox {name}"), encoding="utf-8")
            print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB, {len(frames)} frames")


if __name__ == "__main__":
    main()
