"""The parts of the build that pyproject.toml cannot say: the rooms, and the package page."""

import gzip
import os
import re
import sys
import tarfile
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

here = Path(__file__).parent
package = here / "src" / "dsql_outbox"
rooms = ("observability", "outbox", "publisher", "schema", "writer")


def refuse_missing_rooms() -> None:
    """Exit with an error unless every room has its code in the package."""
    # An sdist holds the code of the rooms there instead of links to them.
    for room in rooms:
        if not (package / room / "__init__.py").is_file():
            sys.exit(
                f"dsql-outbox cannot be built: src/dsql_outbox/{room} has no code. It must be "
                f"a symbolic link to ../../{room}. "
                "Clone again with `git clone -c core.symlinks=true`."
            )


def package_page() -> str:
    """README.md with links that also work outside the repository: to the files of this version."""
    project = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = f"{project['urls']['Source']}/{{}}/v{project['version']}/"
    text = (here / "README.md").read_text(encoding="utf-8")
    text = re.sub(r'(\]\(|href=")#', r"\1README.md#", text)
    text = re.sub(r'(!\[[^]]*\]\(|src=")(?!\w+:)', rf"\1{place.format('raw')}", text)
    return re.sub(r'(\]\(|href=")(?!\w+:)', rf"\1{place.format('blob')}", text)


class SameSdist(sdist):
    """An sdist that is the same file for the same commit, as a wheel is: of SOURCE_DATE_EPOCH."""

    def make_archive(  # pyright: ignore[reportIncompatibleMethodOverride] - as sdist calls it
        self,
        base_name: str,
        format: str,  # noqa: A002 - the name of setuptools
        **options: str | None,
    ) -> str:
        """See `sdist.make_archive`."""
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, **options)

        def at_the_epoch(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime = int(epoch)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            return member

        path = Path(f"{base_name}.tar.gz")
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(options["base_dir"] or ".", filter=at_the_epoch)  # in the order of names
        return str(path)


refuse_missing_rooms()
setup(
    cmdclass={"sdist": SameSdist},
    long_description=package_page(),
    long_description_content_type="text/markdown",
)
