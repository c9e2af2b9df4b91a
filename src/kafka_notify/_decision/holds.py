"""Holds of lanes and destinations, as events and as sentences."""

from __future__ import annotations

import logging

from kafka_notify import events
from kafka_notify._decision.circuit import Circuit

log = logging.getLogger("kafka_notify.send")


def tell_held(circuit: Circuit, now: float, on_event: events.OnEvent | None, *, lane: bool) -> None:
    """Tell that a lane or a destination is held from monotonic `now` on."""
    wait = max(circuit.until - now, 0.0)
    what = "the lane" if lane else "a destination"
    log.warning("%s is held: %s (%s); a probe follows in %.1f s", what, circuit.reason, circuit.cause, wait)
    if on_event is not None:
        held = events.LaneHeld if lane else events.DestinationHeld
        on_event(held(circuit.reason, wait, circuit.cause))


def tell_resumed(circuit: Circuit, now: float, on_event: events.OnEvent | None, *, lane: bool) -> None:
    """Tell that a lane or a destination is no longer held."""
    held = now - circuit.since
    what = "the lane" if lane else "a destination"
    log.warning(
        "%s goes on after %.1f s: %d of %d probes failed",
        what, held, circuit.probes_failed, circuit.probes,
    )  # fmt: skip
    if on_event is not None:
        resumed = events.LaneResumed if lane else events.DestinationResumed
        on_event(resumed(held, circuit.probes))


def how(circuit: Circuit, now: float) -> str:
    """The reason and length of a hold, as text for health."""
    return f"{circuit.reason}, held for {now - circuit.since:.0f} s, {circuit.probes_failed} probes failed"
