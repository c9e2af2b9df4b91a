"""Run the peers: install each into its own virtual environment, and measure it alternately with the library."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks.bench import Bench
from benchmarks.cluster import apart
from benchmarks.load import LOW, Order, check_order, topology
from benchmarks.report import Fact, Row, in_turns
from benchmarks.sending import drain

PEERS: Final = {
    "arroyo_loop": "sentry-arroyo",
    "faststream_app": "faststream[confluent]",
    "aiokafka_loop": "aiokafka[zstd]",
}
ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 15.0
"""Seconds for one run of a peer; some would otherwise take hours."""


@attrs.frozen
class Peer:
    """Measurements of a peer."""

    rate: float
    order: Order


def peers(bench: Bench) -> Iterator[Row]:
    """Measure no-op sends, and 1,000 × 100 ms in flight, with libraries that teams use today."""
    for module, package in PEERS.items():
        try:
            python, version = _install(module, package)
            yield from _beside(bench, python, module, version)
        except (OSError, subprocess.SubprocessError) as e:
            said = (getattr(e, "stderr", "") or str(e)).strip().splitlines()[-1:]
            print(f"peer {package} cannot be installed or run: {' '.join(said)}", flush=True)


def _beside(bench: Bench, python: Path, module: str, version: str) -> Iterator[Row]:
    name = module.partition("_")[0]
    yield _in_turns(bench, python, module, f"{name} noop", bench.count(400_000, 200_000), 0.0, version)
    yield _in_turns(bench, python, module, f"{name} inflight-1000", bench.count(100_000), 0.1, version)


def _in_turns(
    bench: Bench, python: Path, module: str, name: str, records: int, latency: float, version: str
) -> Row:
    ours, theirs = in_turns(
        bench.repeat,
        lambda: apart(drain, bench.work(records, latency=latency)),
        lambda: _run(bench, python, module, records, latency),
    )
    facts: dict[str, Fact] = {
        "out of order": max(run.order.violations + run.order.overlaps for run in theirs),
        "of sends": max(run.order.sends for run in theirs),
        "version": version,
    }
    rates = [run.rate for run in theirs]
    return Row(name, "/s", rates, "kafka-notify", [run.rate for run in ours], facts)


def _install(name: str, package: str) -> tuple[Path, str]:
    """Return an interpreter that has the peer installed, and the peer's version."""
    uv = ROOT / ".uv" / "bin" / "uv"
    tool = str(uv) if uv.exists() else shutil.which("uv")
    if tool is None:
        raise FileNotFoundError(f"{uv} is missing: run `make setup`")
    home = ROOT / "build" / "peers" / name
    python = home / "bin" / "python"
    if not python.exists():
        _call(tool, "venv", "--quiet", "--python", sys.executable, str(home))
    _call(tool, "pip", "install", "--quiet", "--python", str(python), package)
    ask = f"import importlib.metadata as m; print(m.version({package.partition('[')[0]!r}))"
    return python, _call(str(python), "-c", ask).strip()


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True, timeout=600).stdout


def _run(bench: Bench, python: Path, module: str, records: int, latency: float) -> Peer:
    work = bench.work(records)
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        given: dict[str, Any] = {
            "bootstrap": work.bootstrap,
            "topic": topology(work.prefix).source_topic(LOW),
            "group": f"peer.{work.consumer}",
            "records": records,
            "concurrency": work.concurrency,
            "latency": latency,
            "seconds": LIMIT,
            "log": str(log),
        }
        command = [str(python), "-m", f"benchmarks.peers.{module}", json.dumps(given)]
        said = _call(*command)
        sends = array("q")
        sends.frombytes(log.read_bytes())
        return Peer(json.loads(said.splitlines()[-1])["rate"], check_order(sends, work.mix))
