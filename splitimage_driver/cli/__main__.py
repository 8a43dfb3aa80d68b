"""``python -m splitimage_driver.cli`` is the command ``splitimage``."""

from __future__ import annotations

import sys

from splitimage_driver.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
