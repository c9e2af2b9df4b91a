"""The options of every command: the cluster, the topology, and whether to answer in JSON."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table

from kafka_notify._base.text import json_line, printable, printable_lines
from kafka_notify._kafka.config import ConfigValue, config_from_env
from kafka_notify.codec import Codec, JsonCodec
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.topology import Topology

F = TypeVar("F", bound=Callable[..., Any])
MAX_CELL: Final = 20_000
"""Characters: enough for `dlq show --reveal` to show a payload as far as a person would read."""


class Refused(NotifyError):
    """The command did nothing, because that would be unsafe; the text says what to do instead."""


@attrs.frozen
class Answers:
    """The format of a command's answers."""

    json: bool

    def say(self, text: str = "") -> None:
        """Print a text for a person; nothing if the answer is JSON."""
        if not self.json:
            click.echo(printable_lines(text))

    def answer(self, value: object) -> None:
        """Print one JSON document on a line of its own, if the answer is JSON."""
        if self.json:
            click.echo(json_line(value))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        """Print a table for a person; nothing if the answer is JSON."""
        if self.json:
            return
        table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right" if column.startswith(">") else "left", overflow="fold")
            table.columns[-1].header = column.lstrip(">")
        for row in rows:
            table.add_row(*("" if cell is None else printable(str(cell), MAX_CELL) for cell in row))
        # a pipe has no width: use the width of a log line
        Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False).print(table)


@attrs.frozen
class Site(Answers):
    """The cluster and topology of a command, and the format of its answers."""

    config: Mapping[str, ConfigValue] = attrs.field(repr=False)  # it holds secrets
    topology: Topology

    @property
    def servers(self) -> str:
        """The cluster's address, shown so that a person sees which cluster is meant."""
        return str(self.config.get("bootstrap.servers", ""))


def with_site(command: F) -> F:
    """Give a command a `Site` as its first argument, and the options that describe it."""

    @click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file of librdkafka properties, one key=value per line.",
    )
    @click.option("--bootstrap", metavar="HOST:PORT,...", help="The value of bootstrap.servers.")
    @click.option(
        "--topology",
        "topology_at",
        metavar="MODULE:ATTR",
        envvar="KAFKA_NOTIFY_CLI_TOPOLOGY",
        help="A Topology, or a function that returns one. Default: Topology.default().",
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(command)
    def wrapped(
        config_file: Path | None,
        bootstrap: str | None,
        topology_at: str | None,
        as_json: bool,
        **options: Any,
    ) -> Any:
        config = config_from_env()
        if config_file is not None:
            config |= read_properties(config_file)
        if bootstrap:
            config.pop("metadata.broker.list", None)
            config["bootstrap.servers"] = bootstrap
        if not {"bootstrap.servers", "metadata.broker.list"} & config.keys():
            raise ConfigError(
                "no cluster is given; use --bootstrap HOST:PORT or --config FILE, or set KAFKA_NOTIFY_BOOTSTRAP_SERVERS"
            )
        topology = Topology.default() if topology_at is None else load_topology(topology_at)
        return command(Site(as_json, config, topology), **options)

    return wrapped  # type: ignore[return-value]


def read_properties(path: Path) -> dict[str, ConfigValue]:
    """Read a file of properties in librdkafka's format; `#` begins a comment line.

    Raises:
        ConfigError: A line is not a property, or a property is given twice; the text has the line's number, never its
            content.
    """
    found: dict[str, ConfigValue] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{path}:{number}: the line is not of the form name=value")
        if name in found:
            raise ConfigError(f"{path}:{number}: {name} is given twice; remove one of the lines")
        found[name] = value.strip()
    return found


def load(at: str, what: str) -> Any:
    """Return the object that `module:attribute` names.

    Modules are also looked for in the current directory, but last: a file there must not replace a module of Python or
    of the command itself.

    Raises:
        ConfigError: There is no such object, or the module cannot be imported.
    """
    module, colon, attribute = at.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(
            f"{what} must be given as MODULE:NAME, for example myapp.notifications:{what}, not {at!r}"
        )
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or not (module == e.name or module.startswith(f"{e.name}.")):
            raise ConfigError(_import_failed(what, module, e)) from e
        raise ConfigError(f"{what}: there is no module {module!r} here or on PYTHONPATH") from None
    except Exception as e:
        raise ConfigError(_import_failed(what, module, e)) from e
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        raise ConfigError(f"{what}: the module {module!r} has no {attribute!r}") from None
    return found


def _import_failed(what: str, module: str, error: Exception) -> str:
    """A sentence without the text of the exception, which may quote a setting, unless that names a module."""
    why = f": {error}" if isinstance(error, ImportError) else ""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    at = f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return (
        f"{what}: the module {module!r} cannot be imported: {type(error).__name__}{why}{at}; "
        "KAFKA_NOTIFY_CLI_TRACEBACK=1 shows the traceback"
    )


def with_codec(command: F) -> F:
    """Give a command the codec of the values as `codec`, and the option that selects it."""

    @click.option(
        "--codec",
        "codec_at",
        metavar="MODULE:ATTR",
        envvar="KAFKA_NOTIFY_CLI_CODEC",
        help="A codec, or a function that returns one. Default: JSON.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, codec_at: str | None, **options: Any) -> Any:
        return command(*args, codec=JsonCodec() if codec_at is None else load_codec(codec_at), **options)

    return wrapped  # type: ignore[return-value]


def load_codec(at: str) -> Codec:
    """Return the codec that `module:attribute` names or returns.

    Raises:
        ConfigError: It is not a codec.
    """
    found = load(at, "CODEC")
    if isinstance(found, type) or not hasattr(found, "decode"):
        found = found() if callable(found) else found
    if isinstance(getattr(found, "content_type", None), str) and all(
        callable(getattr(found, method, None)) for method in ("encode", "decode")
    ):
        return cast(Codec, found)
    raise ConfigError(
        f"{at} is a {type(found).__name__}, not a codec: it needs content_type, encode() and decode()"
    )


def load_topology(at: str) -> Topology:
    """Return the topology that `module:attribute` names or returns.

    Raises:
        ConfigError: It is not a topology.
    """
    found = load(at, "TOPOLOGY")
    topology = found() if callable(found) else found
    if not isinstance(topology, Topology):
        raise ConfigError(f"{at} is a {type(topology).__name__}, not a Topology")
    return topology
