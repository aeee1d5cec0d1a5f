"""Entry of `scripts/bench`: makes the folder of the project importable and hands over to the command."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from tests.performance.command import main

    sys.exit(main(sys.argv[1:]))
