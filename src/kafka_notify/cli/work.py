"""`work`: one worker in this process, with what an orchestrator needs: probes, logs, a clean shutdown."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from kafka_notify._kafka.config import Config
from kafka_notify.cli._health import HealthServer
from kafka_notify.cli._site import Site, load, read_properties, with_codec, with_site
from kafka_notify.cli._times import PORT, SECONDS
from kafka_notify.codec import Codec
from kafka_notify.consumer import Consumer
from kafka_notify.errors import ConfigError
from kafka_notify.log import JsonFormatter, log_events, show_tracebacks
from kafka_notify.worker import GC_THRESHOLD, Worker

log: Final = logging.getLogger("kafka_notify.worker")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


@click.command()
@click.argument("consumer_at", metavar="MODULE:FACTORY")
@click.option("--lane", required=True, metavar="NAME")
@click.option(
    "--health-port",
    type=PORT,
    metavar="PORT",
    help="Serve /live, /ready and /stats on this port; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option(
    "--metrics-port",
    type=PORT,
    metavar="PORT",
    help="Serve Prometheus metrics; needs the extra `prometheus`.",
)
@click.option(
    "--drain-timeout",
    type=SECONDS,
    default=20.0,
    show_default=True,
    help="Seconds that running sends get at shutdown.",
)
@click.option(
    "--gc/--no-gc",
    "raise_gc",
    default=True,
    show_default=True,
    help="Raise the garbage collector's thresholds.",
)
@click.option(
    "--consumer-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A file of properties for the consumer handle only.",
)
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="INFO",
    show_default=True,
    help="Level of this library and of FACTORY's package; others log warnings.",
)
@click.option(
    "--log",
    "loggers",
    multiple=True,
    metavar="LOGGER=LEVEL",
    help="Level of another logger; may be repeated. At INFO, HTTP clients log URLs with the tokens in them.",
)
@with_site
@with_codec
def work(
    site: Site,
    codec: Codec,
    consumer_at: str,
    lane: str,
    health_port: int | None,
    host: str,
    metrics_port: int | None,
    drain_timeout: float,
    raise_gc: bool,
    consumer_config: Path | None,
    log_format: str,
    log_level: str,
    loggers: tuple[str, ...],
) -> None:
    """Run one worker until SIGTERM or SIGINT; a second signal skips the drain.

    MODULE:FACTORY is a Consumer class, or a function without arguments that returns a consumer. The process exits with
    3 or 4 if the worker cannot start or continue, so that its supervisor starts another.
    """
    show_tracebacks(bool(os.environ.get("KAFKA_NOTIFY_CLI_TRACEBACK")))
    log_to_stderr(
        log_format, {"kafka_notify": log_level, _package(consumer_at): log_level, **_levels(loggers)}
    )
    config: Config | None = read_properties(consumer_config) if consumer_config else None
    worker = Worker(
        factory(consumer_at),
        site.config,
        lane=lane,
        topology=site.topology,
        codec=codec,
        consumer_config=config,
        drain_timeout=drain_timeout,
    )
    log_events(worker)
    with ExitStack() as open_:
        if health_port is not None:
            try:
                health = HealthServer(worker, host, health_port)
            except OSError as e:
                raise ConfigError(f"--health-port {health_port}: {e.strerror}") from None
            health.start()
            open_.callback(health.close)
            log.info("health: http://%s:%d/live and /ready", host, health.port)
        if metrics_port is not None:
            open_.callback(metrics_of(worker, host, metrics_port))
        worker.run(gc_threshold=GC_THRESHOLD if raise_gc else None)
    log.info("stopped: %s", worker.stats())


def metrics_of(worker: Worker, host: str, port: int) -> Callable[[], object]:
    """Start to serve Prometheus metrics; return the function that ends it.

    Raises:
        ConfigError: The extra is missing, or the port is in use.
    """
    try:
        from kafka_notify.prometheus import Metrics
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"--metrics-port: {e.name} is not installed; pip install 'kafka-notify[prometheus]'"
        ) from None
    metrics = Metrics()
    metrics.watch(worker)
    try:
        server = metrics.serve(port, host)
    except OSError as e:
        raise ConfigError(f"--metrics-port {port}: {e.strerror}") from None
    log.info("metrics: http://%s:%d/metrics", host, server.port)
    return server.close


def factory(at: str) -> Any:
    """Return the consumer, or the callable that makes one, that `module:attribute` names.

    Raises:
        ConfigError: It is neither.
    """
    found = load(at, "FACTORY")
    if isinstance(found, Consumer) or callable(found):
        return found
    raise ConfigError(f"{at} is a {type(found).__name__}, neither a Consumer nor a callable that returns one")


def log_to_stderr(log_format: str, levels: Mapping[str, str]) -> None:
    """Log to stderr in this process: warnings, and for some loggers from their own level on."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _package(at: str) -> str:
    return at.partition(":")[0].partition(".")[0]


def _levels(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, level = text.partition("=")
        if not equals or not name or level.upper() not in LEVELS:
            raise click.BadParameter(f"--log takes LOGGER=LEVEL, with a level of {', '.join(LEVELS)}")
        found[name] = level.upper()
    return found
