"""The commands together, their logging and their exit codes: each kind of failure has a code of its own."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click
from confluent_kafka import KafkaException

import kafka_notify
from kafka_notify._base.text import printable_lines
from kafka_notify.cli import check, demo, dlq, pauses, send, status, topics, work
from kafka_notify.cli._site import Refused
from kafka_notify.errors import ConfigError, InvalidNotificationError, NotifyError

FOUND: Final = 1
"""The command ran, and found a problem."""
USAGE: Final = 2
CONFIG: Final = 3
"""A setting, a name or a notification is wrong: nothing was done."""
CLUSTER: Final = 4
"""The brokers did not answer, or refused: everything before that was done."""
REFUSED: Final = 5
"""It would have been unsafe: nothing was done."""
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""The reader of the output has ended; a shell reports the same code for a command that SIGPIPE ended."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(kafka_notify.__version__, prog_name="kafka-notify")
def app() -> None:
    """Operate kafka-notify: topics, workers, pauses, dead letters.

    The cluster is set by KAFKA_NOTIFY_BOOTSTRAP_SERVERS and similar variables (KAFKA_NOTIFY_SASL_PASSWORD sets
    sasl.password), by --config FILE, or by --bootstrap; a later source overrides an earlier one. The topology is set by
    --topology or KAFKA_NOTIFY_CLI_TOPOLOGY.

    Exit codes: 0 done, 1 a problem was found, 2 usage or an unreadable file, 3 configuration, 4 cluster or a defect, 5
    refused as unsafe, 130 interrupted, 141 nobody reads the output. KAFKA_NOTIFY_CLI_TRACEBACK=1 shows the traceback of
    a failure.
    """


for command in (
    topics.topics,
    work.work,
    status.status,
    send.send,
    dlq.dlq,
    pauses.pause,
    pauses.resume,
    pauses.paused,
    check.check,
    demo.demo,
):
    app.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command, and return its exit code."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        if "_KAFKA_NOTIFY_COMPLETE" in os.environ:  # a shell asks for completions
            app.main(args=list(arguments), prog_name="kafka-notify")
        # `app.main` would end a closed pipe with the code of a problem that was found
        with app.make_context("kafka-notify", list(arguments)) as context:
            code = app.invoke(context)
        sys.stdout.flush()  # so that a closed pipe raises here
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted", INTERRUPTED)
    except Refused as e:
        return _failed(f"refused: {e}", REFUSED)
    except (ConfigError, InvalidNotificationError) as e:
        return _failed(str(e), CONFIG)
    except NotifyError as e:
        return _failed(str(e), CLUSTER)
    except KafkaException as e:
        return _failed(f"the brokers refused ({e.args[0].name()}: {e.args[0].str()})", CLUSTER)
    except BrokenPipeError:
        # the interpreter flushes once more at its end: discard that output
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as e:  # a defect of this library: the text of any exception may contain personal data
        at = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{at.filename}:{at.lineno}"
        return _failed(
            f"failed with {type(e).__name__} at {where}, which is a defect: please report it with the traceback that "
            "KAFKA_NOTIFY_CLI_TRACEBACK=1 shows",
            CLUSTER,
        )


def _failed(text: str, code: int) -> int:
    if os.environ.get("KAFKA_NOTIFY_CLI_TRACEBACK") and code != INTERRUPTED:
        traceback.print_exc()
    click.echo(f"kafka-notify: {printable_lines(text)}", err=True)
    return code
