# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The lab's command line: ``python3 tests/lab/lab.py up``. Standard library only."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # "lab" is the package, not this file

from lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
