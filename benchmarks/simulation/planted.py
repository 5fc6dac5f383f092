"""``python -m benchmarks.simulation.planted DEFECT MODULE ..``: a program with a planted defect.

It runs MODULE as a program, on the words that follow, with a relay that has the defect.
"""

import runpy
import sys

from .defects import DEFECTS


def main() -> None:
    del sys.argv[0]
    with DEFECTS[sys.argv.pop(0)]():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
