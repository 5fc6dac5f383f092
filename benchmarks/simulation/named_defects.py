"""The defects that a module can plant, by their names."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from inspect import isfunction
from typing import Any

Defect = Callable[[], AbstractContextManager[Any]]


def defects_of(module: str) -> dict[str, Defect]:
    """Return the public functions that a module has defined so far: each plants a defect."""
    return {
        name: each
        for name, each in vars(sys.modules[module]).items()
        if isfunction(each) and each.__module__ == module and not name.startswith("_")
    }
