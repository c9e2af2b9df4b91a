"""Chaos for as long as you like: `python -m tests.guarantees.soak --minutes 30`.

Each run has a seed, and says what was done. A broken guarantee ends it, and leaves the log where it says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from kafka_notify.testing import LocalKafka
from tests.guarantees.chaos import Chaos, variant
from tests.guarantees.fleet import Fleet


def main() -> int:
    """Run until the time is over; 1 when a guarantee was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after the run that passes this")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the first run; then the next numbers"
    )
    parser.add_argument("--actions", type=int, default=25, help="disturbances in each run")
    parser.add_argument("--rate", type=int, default=100, help="notifications produced each second")
    parser.add_argument("--brokers", type=int, default=3, choices=(1, 3))
    options = parser.parse_args()
    deadline = time.monotonic() + options.minutes * 60
    seed = options.seed
    with LocalKafka(brokers=options.brokers) as kafka:
        while time.monotonic() < deadline:
            directory = Path(tempfile.mkdtemp(prefix="kafka-notify-soak-"))
            try:
                with Fleet(kafka.bootstrap_servers, directory, **variant(seed)) as fleet:
                    said = Chaos(fleet, kafka, seed).run(options.actions, options.rate)
            except AssertionError as e:
                sys.stdout.write(f"seed {seed} broke a guarantee, see {directory}:\n{e}\n")
                return 1
            shutil.rmtree(directory)
            sys.stdout.write(f"seed {seed}, {variant(seed)}: {said}\n")
            sys.stdout.flush()
            seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
