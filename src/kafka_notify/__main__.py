"""`python -m kafka_notify`: the command `kafka-notify`."""

from __future__ import annotations

import sys

from kafka_notify.cli import main

if __name__ == "__main__":
    sys.exit(main())
