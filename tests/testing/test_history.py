"""Histories: what is written can be judged again, nothing personal is in them, and a bad line is named."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify._base import codes
from kafka_notify.cli import main
from kafka_notify.testing import history as module
from kafka_notify.testing._judgement import judged
from kafka_notify.testing.attempt_log import Failing, Produced, Started
from kafka_notify.testing.guarantees import Anomaly, Guarantees, Letter, Observation, SourceRecord
from kafka_notify.testing.history import Header, HistoryError, HistoryFile, write_history
from tests.guarantees.test_checkers import RIGHT, WRONG, violations

HAND: Path = Path(__file__).parent / "histories"
"""Files that another tool could have written: other spaces, other order, fields of its own."""
ANOMALIES: tuple[str, ...] = typing.get_args(Anomaly)
HEAD = '{"format": "kafka-notify-history", "version": 1, "max_attempts": 4}\n'
LINE = '{"kind": "Owned", "at": 1, "worker": "w", "partition": 0}\n'
PERSONAL = ("ann@example.org", "+4915100", "Dear Ann", "from-bob")


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """The exit code of the command and its answer."""
    code = main(["check", "--json", str(path)])
    return code, json.loads(capsys.readouterr().out)


# -- files of other tools -------------------------------------------------------------------------------


def test_each_anomaly_has_a_file() -> None:
    """There is a file for each name of an anomaly, and one without any."""
    assert {path.stem for path in HAND.glob("*.jsonl")} == {*ANOMALIES, "clean"}


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_hand_written_anomaly(anomaly: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command finds the anomaly in the file that is named after it, and says where."""
    code, answer = checked(HAND / f"{anomaly}.jsonl", capsys)
    assert code == 1
    assert anomaly in answer["anomalies"]
    lines = (HAND / f"{anomaly}.jsonl").read_text().splitlines()
    for found in answer["violations"]:
        assert all(2 <= number <= len(lines) for number in found["lines"])


def test_hand_written_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """A retry, a dead letter, a killed worker and a hand-over are no violation."""
    code, answer = checked(HAND / "clean.jsonl", capsys)
    assert (code, answer["violations"]) == (0, [])
    assert (answer["notifications"], answer["accepted"], answer["dead_letters"]) == (4, 3, 1)


def test_lines_that_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Line numbers are those of the file, whose first line is the header."""
    path = HAND / "duplicate.jsonl"
    _, answer = checked(path, capsys)
    [found] = answer["violations"]
    shown = [json.loads(path.read_text().splitlines()[number - 1]) for number in found["lines"]]
    assert [(line["kind"], line["id"]) for line in shown] == [("Started", "n0")] * 2


# -- lost, or not seen yet ------------------------------------------------------------------------------


def fate(*lines: dict[str, Any], tmp_path: Path) -> list[str]:
    """What `NothingLost` calls the one notification that has not ended."""
    path = tmp_path / "h.jsonl"
    produced = {"kind": "Produced", "at": 1, "id": "n0", "user": "u", "partition": 0, "offset": 0}
    path.write_text(HEAD + "".join(json.dumps(line) + "\n" for line in (produced, *lines)))
    found = judged(HistoryFile(path))["violations"]
    return [each["anomaly"] for each in found if each["checker"] == "NothingLost"]


def commit(source: int, retry: int = 0, **more: Any) -> dict[str, Any]:
    fields = {"source_gaps": "", "retry_gaps": "", "fence_end": 0, "fence_writer": "w", **more}
    return {"kind": "Committed", "at": 2, "partition": 0, "source": source, "retry": retry, **fields}


COPY = {
    "kind": "Copied",
    "at": 2,
    "partition": 0,
    "offset": 0,
    "origin": 0,
    "id": "n0",
    "attempts": 1,
    "due": 0,
}
ENDS = {"kind": "LogEnds", "partition": 0, "source": 1, "retry": 1}
LATER = {"kind": "SourceRecord", "partition": 0, "offset": 5, "key": None, "value": None, "headers": []}


@pytest.mark.parametrize(
    ("anomaly", "lines"),
    [
        ("unseen", []),
        ("unseen", [commit(1)]),  # the topics were not read, so a copy may be there
        ("unseen", [ENDS]),
        ("unseen", [commit(0), ENDS]),
        ("unseen", [{**COPY, "writer": "w"}, commit(1), ENDS]),
        ("lost-write", [commit(1), ENDS]),
        ("lost-write", [{**COPY, "writer": "w"}, commit(1, 1), ENDS]),
        ("lost-write", [{**COPY, "writer": "z"}, commit(1), ENDS]),  # the fence keeps a zombie's copy out
        ("lost-write", [commit(0, source_gaps="1"), ENDS]),
        ("lost-write", [LATER]),  # the topic was read past it
    ],
)
def test_lost_is_proved(anomaly: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    """A write is lost when the look at the topics shows that nobody will send it, and unseen before that."""
    assert fate(*lines, tmp_path=tmp_path) == [anomaly]


# -- what is written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_the_file_says_the_same(name: str, tmp_path: Path) -> None:
    """A run is judged by its file as it was judged by what was observed."""
    seen = RIGHT[name] if name in RIGHT else WRONG[name][1]
    path = tmp_path / "h.jsonl"
    assert write_history(path, seen, Header(4)) == len(seen)
    held = Guarantees.all(max_attempts=4)
    for one in HistoryFile(path):
        held.observe(one)
    assert list(held.violations()) == violations(seen)


@pytest.mark.invariant(n=23)
def test_nothing_personal_is_written(tmp_path: Path) -> None:
    """Neither a payload nor a recipient nor a user is in the file; what is equal stays equal."""
    user, recipient, payload, header = (text.encode() for text in PERSONAL)
    headers = (("notif-recipient", recipient), ("sender", header))
    cut = ("notif-last-error-code", codes.RECORD_TOO_LARGE.encode())
    seen: list[Observation] = [
        Produced("n0", PERSONAL[0], 0, 0),
        Started("a", "n0", PERSONAL[0], 1),
        Failing(True, PERSONAL[0]),
        SourceRecord(0, 0, user, payload, headers, "n0"),
        Letter(0, 0, "permanent", True, 0, user, payload, (*headers, cut)),
        SourceRecord(0, 1, user, None, ()),
    ]
    path = tmp_path / "h.jsonl"
    write_history(path, seen, Header(4))
    text = path.read_text()
    assert not [word for word in PERSONAL if word in text]
    *_, record, letter, empty = HistoryFile(path)
    assert isinstance(record, SourceRecord)
    assert isinstance(letter, Letter)
    assert (record.key, record.value, record.headers) == (letter.key, letter.value, letter.headers[:2])
    assert letter.headers[2] == cut
    assert isinstance(empty, SourceRecord)
    assert (empty.key, empty.value) == (record.key, None)
    write_history(path, seen, Header(4))
    assert path.read_text() != text  # another key: tokens of two files say nothing about each other


def test_header_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is promised is what the header says: the limit of attempts, and whether order is kept."""
    path = tmp_path / "h.jsonl"
    write_history(path, WRONG["one attempt too many"][1], Header(5))
    assert checked(path, capsys)[0] == 0
    write_history(path, WRONG["later one first"][1], Header(4, "none"))
    code, answer = checked(path, capsys)
    assert code == 0
    assert any(text.startswith("order") for text in answer["not_judged"])


# -- unreadable files -----------------------------------------------------------------------------------

UNREADABLE: dict[str, tuple[int, str]] = {
    "empty": (1, ""),
    "no header": (1, LINE),
    "another format": (1, '{"format": "other", "version": 1, "max_attempts": 4}\n'),
    "newer": (1, HEAD.replace("1", "2", 1)),
    "no limit": (1, HEAD.replace("max_attempts", "attempts")),
    "limit of 0": (1, HEAD.replace("4", "0")),
    "unknown order": (1, HEAD.replace("4}", '4, "order": "channel"}')),
    "not JSON": (3, HEAD + LINE + "Dear Ann\n"),
    "not UTF-8": (2, HEAD + "\udcff\n"),
    "not an object": (2, HEAD + '["Dear Ann"]\n'),
    "nested too deep": (2, HEAD + "[" * 100_000 + "\n"),
    "blank line": (2, HEAD + "\n" + LINE),
    "unknown kind": (2, HEAD + LINE.replace("Owned", "Dear Ann")),
    "kind of another type": (2, HEAD + LINE.replace('"Owned"', '["Dear Ann"]')),
    "field missing": (3, HEAD + LINE + LINE.replace("partition", "part")),
    "no time": (2, HEAD + LINE.replace('"at": 1,', "")),
    "wrong type": (2, HEAD + LINE.replace('"w"', "7")),
    "a bool for a number": (2, HEAD + LINE.replace("0}", "true}")),
    "negative number": (2, HEAD + LINE.replace("0}", "-1}")),
    "attempt 0": (2, HEAD + '{"kind":"Started","at":1,"worker":"w","id":"n","user":"u","attempt":0}\n'),
    "huge number": (2, HEAD + LINE.replace("0}", "1" * 30 + "}")),
    "cut off": (3, HEAD + LINE + LINE[:-9]),
    "gaps of letters": (2, HEAD + json.dumps(commit(0, source_gaps="Dear Ann")) + "\n"),
    "unknown disturbance": (2, HEAD + '{"kind":"Disturbed","at":1,"worker":"w","how":"Dear Ann"}\n'),
    "budget of one number": (
        2, HEAD + '{"kind":"Sampled","at":1,"worker":"w","concurrency":1,"in_flight":0,"budgets":{"a":[1]}}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and the text names the line without quoting it."""
    line, text = UNREADABLE[name]
    path = tmp_path / "h.jsonl"
    path.write_text(text, errors="surrogateescape")
    assert main(["check", "--json", str(path)]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["line"] == line
    assert f"h.jsonl:{line}: " in said.err
    assert "Dear Ann" not in said.out + said.err


def test_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a line beyond their limits are refused before they are read into memory."""
    path = tmp_path / "h.jsonl"
    path.write_text(HEAD + LINE)
    with pytest.raises(HistoryError, match=r"at most 50 are read"):
        HistoryFile(path, max_bytes=50)
    monkeypatch.setattr(module, "MAX_LINE", 80)
    path.write_text(HEAD + LINE.replace("w", "w" * 100))
    with pytest.raises(HistoryError, match=r":2: a line has at most 80 bytes"):
        list(HistoryFile(path))
    assert main(["check", str(tmp_path / "none.jsonl")]) == 2
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)
    assert main(["check", "--max-size", "1", str(path)]) == 2
    assert "at most 1,048,576 are read" in capsys.readouterr().err


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the answer is text: what was found and where, then how often."""
    assert main(["check", str(HAND / "duplicate.jsonl")]) == 1
    *_, found, last = capsys.readouterr().out.splitlines()
    assert found.startswith("duplicate (DuplicatesBounded, line 4, 7): n0 was accepted again")
    assert last == "violations: 1 duplicate"


def test_many_violations_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer lists the first thousand, a person sees ten of each kind, and all are counted."""
    path = tmp_path / "h.jsonl"
    produced = {"kind": "Produced", "at": 1, "user": "u", "partition": 0}
    lines = (json.dumps({**produced, "id": f"n{n}", "offset": n}) for n in range(1_500))
    path.write_text(HEAD + "\n".join(lines) + "\n")
    _, answer = checked(path, capsys)
    assert (answer["count"], len(answer["violations"]), answer["anomalies"]) == (
        1_500,
        1_000,
        {"unseen": 1_500},
    )
    assert main(["check", str(path)]) == 1
    assert "… and 1,490 more" in capsys.readouterr().out


# -- any file -------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", ""])
NUMBERS = st.integers(1, 3) | st.integers(0, (1 << 63) - 1)


def values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field that its type allows."""
    if name.endswith("_gaps"):
        return st.text("01", max_size=4)
    if name == "attempt":
        return st.integers(1, 5)
    if name == "headers":
        return st.lists(st.tuples(WORDS, st.none() | WORDS), max_size=2)
    if hint in (str, bytes):
        return WORDS
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return NUMBERS
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0])
    if origin is typing.Literal:
        return st.sampled_from(parts)
    if origin is list:
        return st.lists(values("", parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(WORDS, st.lists(NUMBERS, min_size=2, max_size=2), max_size=2)
    return st.none() | values("", parts[0])


def lines() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lines of all kinds, in any order."""
    kinds = [
        st.fixed_dictionaries(
            {"kind": st.just(name), **{n: values(n, hint) for n, hint in typing.get_type_hints(kind).items()}}
        )
        for name, kind in module._KINDS.items()
    ]
    return st.lists(st.one_of(kinds), max_size=12)


@given(lines())
def test_any_lines_are_judged(tmp_path_factory: pytest.TempPathFactory, given: list[dict[str, Any]]) -> None:
    """Whatever another tool writes is read and judged, however little sense it makes."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(HEAD + "".join(json.dumps(line) + "\n" for line in given))
    assert judged(HistoryFile(path))["observations"] == len(given)
