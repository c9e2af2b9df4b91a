"""`demo`: the demo as a command."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> int:
    """Watch lanes, retries and dead letters at work, on a Kafka started for the demo (`demo --help`)."""
    from kafka_notify.demo.__main__ import main

    try:
        return main(arguments)
    except SystemExit as e:  # argparse's --help and usage errors
        return e.code if isinstance(e.code, int) else 0
