"""`python -m kafka_notify`: the command `kafka-notify`."""

from __future__ import annotations

import os
import sys

from kafka_notify.cli import main

if __name__ == "__main__":
    # `python -m` puts the current directory first: a file there must not replace a module of Python's own that is
    # imported later. Teams' modules are found nevertheless: see `cli._site.load`.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    sys.exit(main())
