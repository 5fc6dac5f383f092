"""Refuse to build without a room. Everything else of the build is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
package = here / "src" / "dsql_outbox"
# In an sdist there are neither: it holds the code of the rooms instead of links to them.
folders = {init.parent.name for init in here.glob("*/__init__.py")}
links = {link.name for link in package.iterdir() if link.is_symlink()}
for room in sorted(folders | links):
    if not (package / room / "__init__.py").is_file():
        sys.exit(
            f"dsql-outbox cannot be built: src/dsql_outbox/{room} has no code. It must be a "
            f"symbolic link to ../../{room}. Clone again with `git clone -c core.symlinks=true`."
        )
setup()
