"""`dlq`: dead letters, and the way back."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, TypeVar, cast

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kafka_notify.cli._site import Site, with_codec, with_site
from kafka_notify.cli._times import COUNT, POSITIVE, moment, show_moment
from kafka_notify.codec import Codec
from kafka_notify.deadletters import DeadLetter, DeadLetters, RedriveProgress, RedriveReport

F = TypeVar("F", bound=Callable[..., Any])
FILTERS: Final = (
    "reason", "category", "channel", "error_code", "user_id", "consumer", "since", "until", "id",
)  # fmt: skip
OPTIONS: Final = {
    "pass `to`": "pass --to CONSUMER",
    "`allow_unverified`": "--allow-unverified",
    "`codec`": "--codec",
}
PHASES: Final = {
    "reading": "reading dead letters",
    "comparing": "looking for what was redriven before",
    "writing": "redriving",
}


@click.group()
def dlq() -> None:
    """Dead letters: list, show, export, redrive."""


def with_filters(command: F) -> F:
    """Give a command the options that select dead letters, as `filters`."""

    @click.option("--reason", metavar="REASON", help="permanent, max_attempts, expired, ...")
    @click.option("--category", metavar="NAME")
    @click.option("--channel", metavar="NAME")
    @click.option("--code", "error_code", metavar="CODE", help="Code of the last failure, such as http.504.")
    @click.option("--user", "user_id", metavar="ID")
    @click.option("--consumer", metavar="NAME", help="`workers` is the unnamed consumer.")
    @click.option(
        "--since",
        metavar="TIME",
        type=moment,
        help="Dead-lettered since: 2026-11-22T03:00:00Z, or 3h (ago).",
    )
    @click.option("--until", metavar="TIME", type=moment, help="Dead-lettered before.")
    @click.option("--id", "id", metavar="ID", help="ID of the notification.")
    @functools.wraps(command)
    def wrapped(site: Site, **given: Any) -> Any:
        filters = {name: given.pop(name) for name in FILTERS}
        return command(site, filters=filters, **given)

    return cast(F, wrapped)


def _dead_letters(site: Site, codec: Codec) -> DeadLetters:
    return DeadLetters(site.config, topology=site.topology, codec=codec)


# -- list ------------------------------------------------------------------------------------------


@dlq.command("list")
@click.option("--limit", type=COUNT, default=50, show_default=True, help="Dead letters shown; 0 only counts.")
@with_site
@with_codec
@with_filters
def list_(site: Site, codec: Codec, filters: dict[str, Any], limit: int) -> None:
    """Count dead letters by reason and code, and show the first ones. Neither users nor payloads are shown."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    shown: list[DeadLetter] = []
    for each in _dead_letters(site, codec).find(**filters):
        n = each.notification
        counts[each.reason, each.error_code or "", each.consumer, n.category if n else "?"] += 1
        if len(shown) < limit:
            shown.append(each)
    total = sum(counts.values())
    site.table(
        [">dead letters", "reason", "code", "consumer", "category"],
        [(f"{count:,}", *key) for key, count in counts.most_common()],
    )
    if shown:
        site.table(
            ["id", "reason", "code", "channel", "dead since", ">attempts", ">redrives", "", "where"],
            [
                (
                    x.id,
                    x.reason,
                    x.error_code,
                    x.notification.channel if x.notification else "?",
                    show_moment(x.died_at),
                    x.state.history.attempts,
                    x.redrives,
                    " ".join(
                        name for name, is_so in (("expired", x.expired), ("redacted", x.redacted)) if is_so
                    ),
                    f"{x.topic}[{x.partition}]@{x.offset}",
                )
                for x in shown
            ],
        )
    site.say(
        f"{total:,} dead letters"
        + (f", {len(shown):,} of them shown (--limit)" if len(shown) < total else "")
    )
    site.answer(
        {
            "total": total,
            "counts": [
                dict(zip(("reason", "error_code", "consumer", "category"), key, strict=True))
                | {"count": count}
                for key, count in counts.most_common()
            ],
            "letters": [each.to_dict() for each in shown],
        }
    )


# -- show ------------------------------------------------------------------------------------------


@dlq.command()
@click.argument("id")
@click.option("--reveal", is_flag=True, help="Also show user, recipient, headers and payload: personal data.")
@with_site
@with_codec
def show(site: Site, codec: Codec, id: str, reveal: bool) -> int:
    """Show all dead letters of one notification, and whether it can be redriven.

    The source record is looked up: --reveal shows the payload from there, even if the dead letter itself is redacted.
    """
    dead_letters = _dead_letters(site, codec)
    own = sorted(dead_letters.restored(dead_letters.find(id=id)), key=lambda each: each.died_at)
    found = [each.to_dict(personal=reveal) for each in own]
    for plain in found:
        site.table(["", ""], [(name, value) for name, value in plain.items() if value not in (None, "")])
    if not found:
        site.say(f"no dead letter of {id}")
    for sentence in dict.fromkeys(_about_source(each) for each in own):
        site.say(sentence)
    if found and not reveal:
        site.say("--reveal also shows user, recipient, headers and payload")
    site.answer(found)
    return 0 if found else 1


def _about_source(dead_letter: DeadLetter) -> str:
    source = dead_letter.source
    assert source is not None
    if source.state == "different":
        return "! its source record has other bytes: this dead letter is forged or foreign, and is never redriven"
    if source.state == "gone":
        return "its source record is gone: " + (
            "the redacted payload is gone with it, and cannot be redriven"
            if dead_letter.redacted
            else "it is redriven with --allow-unverified only"
        )
    until = source.kept_until
    return "its source record is kept, payload included" + (
        "; for how long is not known, because its topic deletes by size or its settings may not be read"
        if until is None
        else f" until {show_moment(until)} at least: redrive it before then"
    )


# -- export ----------------------------------------------------------------------------------------


@dlq.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--personal", is_flag=True, help="Also export user, recipient, headers and payload.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@with_site
@with_codec
@with_filters
def export(
    site: Site, codec: Codec, filters: dict[str, Any], file: Path, personal: bool, force: bool
) -> None:
    """Write dead letters to FILE as JSON, one per line; - is standard output. Only you can read the file."""
    dead_letters = _dead_letters(site, codec)
    if str(file) == "-":
        dead_letters.export(dead_letters.find(**filters), sys.stdout, personal=personal)
        return
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; --force replaces it")
    part = file.with_name(f"{file.name}.part")  # so that FILE is complete as soon as it exists
    try:
        with _private(part) as out:
            count = dead_letters.export(dead_letters.find(**filters), out, personal=personal)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    site.say(f"{count:,} dead letters in {file}" + (", with personal data" if personal else ""))
    site.answer({"letters": count, "file": str(file), "personal": personal})


def _private(path: Path) -> IO[str]:
    path.unlink(missing_ok=True)  # an old file could be readable for others
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")


# -- redrive ---------------------------------------------------------------------------------------


@dlq.command()
@click.option("--go", is_flag=True, help="Redrive; without it, dead letters are only counted.")
@click.option(
    "--rate",
    type=POSITIVE,
    metavar="N",
    help="Dead letters per second. Default: as fast as the brokers accept them.",
)
@click.option("--limit", type=COUNT, metavar="N", help="Redrive only the first N dead letters found.")
@click.option(
    "--allow-expired", is_flag=True, help="Include expired ones; each gets its full lifetime again."
)
@click.option("--allow-unproven", is_flag=True, help="Include those that may have been redriven before.")
@click.option("--allow-unverified", is_flag=True, help="Include those whose source record is gone.")
@click.option(
    "--to",
    metavar="CONSUMER",
    help="Give them to this consumer, for example because their own was renamed.",
)
@with_site
@with_codec
@with_filters
def redrive(
    site: Site,
    codec: Codec,
    filters: dict[str, Any],
    go: bool,
    rate: float | None,
    limit: int | None,
    allow_expired: bool,
    allow_unproven: bool,
    allow_unverified: bool,
    to: str | None,
) -> int:
    """Give dead letters back to the consumers that gave up on them, in order; without --go only count.

    Ctrl-C stops it after the copies that were written are acknowledged. To resume, run it again: dead letters that were
    redriven are left out, even after a kill.
    """
    dead_letters = _dead_letters(site, codec)
    cancel = threading.Event()
    with (
        _cancelled_by_signals(cancel),
        _progress(site) as on_progress,
        closing(cast("Generator[DeadLetter]", dead_letters.find(**filters))) as found,
    ):
        chosen: Iterator[DeadLetter] = found if limit is None else islice(found, limit)
        report = dead_letters.redrive(
            chosen,
            dry_run=not go,
            rate=rate,
            allow_expired=allow_expired,
            allow_unproven=allow_unproven,
            allow_unverified=allow_unverified,
            to=to,
            on_progress=on_progress,
            cancel=cancel,
        )
    _tell(site, report)
    site.answer(attrs.asdict(report))
    return 130 if report.cancelled else 0


def _tell(site: Site, report: RedriveReport) -> None:
    if report.dry_run:
        site.say(f"{report.redriven:,} dead letters would be redriven on {site.servers}; --go redrives them")
    else:
        site.say(f"{report.redriven:,} dead letters redriven on {site.servers}")
    for why, count in sorted(report.skipped.items()):
        site.say(f"{count:,} left out: {why}")
    for sentence in report.advice:
        for of_python, of_the_command in OPTIONS.items():
            sentence = sentence.replace(of_python, of_the_command)
        site.say(f"! {sentence}")
    if report.cancelled:
        site.say(f"cancelled; {report.remaining:,} of those read are left: run it again to continue")


@contextmanager
def _progress(site: Site) -> Generator[Callable[[RedriveProgress], object]]:
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=site.json or not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task(PHASES["reading"], total=None)

    def on_progress(progress: RedriveProgress) -> None:
        bar.update(task, description=PHASES[progress.phase], completed=progress.done, total=progress.total)

    with bar:
        yield on_progress


@contextmanager
def _cancelled_by_signals(cancel: threading.Event) -> Generator[None]:
    """SIGINT and SIGTERM set `cancel`; a second one ends the process as usual."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_signal(number: int, _: FrameType | None) -> None:
        cancel.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
