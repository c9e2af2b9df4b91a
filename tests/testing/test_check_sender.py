"""`check_sender` passes a good sender, and finds what is wrong with each bad one, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
import requests

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    Receipt,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    classify_http,
)
from kafka_notify.classify import classify_exception
from kafka_notify.testing import HttpAnswer, HttpStub, SenderReport, check_sender

RECIPIENT, TEXT, TOKEN = "+15550103344", "your code is 918273", "token-of-the-account"
QUOTED = {"error": f"no message to {RECIPIENT}"}
ANSWERS = {
    "accepted": HttpAnswer(201, {"id": "m-1"}),
    "throttled": HttpAnswer(429, QUOTED, {"Retry-After": "7"}),
    "permanent": HttpAnswer(400, QUOTED),
    "invalid_recipient": HttpAnswer(400, {**QUOTED, "code": "no_such_number"}),
    "unavailable": HttpAnswer(401, QUOTED),
    "unknown": HttpAnswer(500, QUOTED),
    "opted_out": HttpAnswer(400, {**QUOTED, "code": "opted_out"}),
}
CODES = {"no_such_number": InvalidRecipientError, "opted_out": InvalidRecipientError}
log = logging.getLogger("team.sms")


class Good(Consumer):
    """What a team might write; the others here are this one with a mistake."""

    name = "sms"
    channels = frozenset({"sms"})

    def __init__(self, url: str) -> None:
        self.url = url

    async def setup(self) -> None:
        self.client = httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"})

    async def teardown(self) -> None:
        await self.client.aclose()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        try:
            response = await self.post(
                self.message(notification, attempt), self.key(attempt), attempt.timeout
            )
        except httpx.HTTPError as e:
            raise classify_exception(e, provider="acme") or UnknownOutcomeError(
                "acme", provider="acme"
            ) from None
        return self.receipt(response, notification)

    def message(self, notification: Notification[Any], attempt: Attempt) -> dict[str, Any]:
        ttl = int(attempt.remaining_ttl or 0)
        return {"to": notification.recipient, "text": notification.data["text"], "ttl": ttl}

    def key(self, attempt: Attempt) -> str:
        return attempt.idempotency_key

    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return await self.client.post("/messages", json=message, headers=headers, timeout=timeout)

    def receipt(self, response: httpx.Response, notification: Notification[Any]) -> Receipt:
        is_json = response.headers["Content-Type"] == "application/json"
        body = response.json() if is_json else {}
        if error := self.error(response, body):
            raise error
        return Receipt("acme", body["id"])

    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        return classify_http(
            response.status_code, response.headers, provider="acme", code=body.get("code"), codes=CODES
        )


class Plain(Good):
    """With a blocking client."""

    def setup(self) -> None:  # type: ignore[override]
        self.session = requests.Session()

    def teardown(self) -> None:  # type: ignore[override]
        self.session.close()

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:  # type: ignore[override]
        try:
            response = self.session.post(
                f"{self.url}/messages",
                json=self.message(notification, attempt),
                headers={"Idempotency-Key": self.key(attempt)},
                timeout=self.time(attempt),
            )
        except requests.RequestException as e:
            raise classify_exception(e, provider="acme") or UnknownOutcomeError("acme") from None
        return self.receipt(response, notification)  # type: ignore[arg-type]

    def time(self, attempt: Attempt) -> float | None:
        return attempt.timeout


class AsksAPerson(Good):
    """Sends nothing again that may have been sent."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if attempt.maybe_sent:
            raise PermanentError("may_have_been_sent", provider="acme")
        return await super().send(notification, attempt)


class SendsAndAsks(Good):
    """Sends it again all the same."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        receipt = await super().send(notification, attempt)
        if attempt.maybe_sent:
            raise PermanentError("may_have_been_sent", provider="acme")
        return receipt


# -- with a mistake


class NoReceipt(Good):
    def receipt(self, response: httpx.Response, notification: Notification[Any]) -> Receipt:
        super().receipt(response, notification)
        return None  # type: ignore[return-value]


class NeverLooks(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        return None

    def receipt(self, response: httpx.Response, notification: Notification[Any]) -> Receipt:
        return Receipt("acme")


class AllTransient(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        return TransientError("acme", provider="acme") if response.status_code >= 400 else None


class DropsAddresses(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        error = super().error(response, body)
        return InvalidRecipientError("acme", provider="acme") if isinstance(error, PermanentError) else error


class AssumesJson(Good):
    def receipt(self, response: httpx.Response, notification: Notification[Any]) -> Receipt:
        body = response.json()
        if error := self.error(response, body):
            raise error
        return Receipt("acme", body["id"])


class NoWait(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        error = super().error(response, body)
        return ThrottledError("acme", provider="acme") if isinstance(error, ThrottledError) else error


class Nameless(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        error = super().error(response, body)
        if error is not None and response.status_code == 429:
            error.provider = None
        return error


class TriesAgain(Good):
    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        response = await super().post(message, key, timeout)
        return response if response.status_code < 500 else await super().post(message, key, timeout)


class NoKey(Good):
    def key(self, attempt: Attempt) -> str:
        return str(uuid.uuid4())


class KeyPerAttempt(Good):
    def key(self, attempt: Attempt) -> str:
        return f"{attempt.idempotency_key}-{attempt.number}"


class NoTtl(Good):
    def message(self, notification: Notification[Any], attempt: Attempt) -> dict[str, Any]:
        return {"to": notification.recipient, "text": notification.data["text"]}


class OwnTimeout(Good):
    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        return await super().post(message, key, 60)


class PlainWithoutTimeout(Plain):
    def time(self, attempt: Attempt) -> float | None:
        return None


class Uncancellable(Good):
    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        try:
            return await super().send(notification, attempt)
        except asyncio.CancelledError:
            return Receipt("acme")


class CancelledIsPermanent(Good):
    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        try:
            return await super().send(notification, attempt)
        except asyncio.CancelledError:
            raise PermanentError("acme", provider="acme") from None


class Blocks(Plain):
    """A blocking client in a coroutine."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:  # type: ignore[override]
        return super().send(notification, attempt)


class RecipientAsId(Good):
    def receipt(self, response: httpx.Response, notification: Notification[Any]) -> Receipt:
        super().receipt(response, notification)
        return Receipt("acme", notification.recipient)


class LosesConnections(Good):
    """Takes a place for a connection and does not give it back when the provider hangs up."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if getattr(self, "lost", False):
            raise TransientError("acme.no_connection", provider="acme")
        try:
            return await super().send(notification, attempt)
        except UnknownOutcomeError as e:
            self.lost = e.code == "httpx.RemoteProtocolError"
            raise


class SaysAnswer(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        if response.status_code == 400 and "code" not in body:
            raise PermanentTeamError(response.text)
        return super().error(response, body)


class PermanentTeamError(PermanentError):
    """With a text of its own."""

    def __init__(self, text: str) -> None:
        super().__init__("acme", provider="acme")
        self.text = text

    def __str__(self) -> str:
        return self.text


class KeepsCause(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        error = super().error(response, body)
        if response.status_code == 500 and error is not None:
            raise error from RuntimeError(f"the answer was {body}")
        return error


class LogsRecipient(Good):
    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        log.info("sending %s", message)
        return await super().post(message, key, timeout)


class LogsTraceback(Good):
    def error(self, response: httpx.Response, body: Mapping[str, Any]) -> DeliveryError | None:
        try:
            if response.status_code == 500:
                raise RuntimeError(response.text)
        except RuntimeError:
            log.exception("what now?")
        return super().error(response, body)


class LogsToken(Good):
    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        log.warning("%s", dict(self.client.headers))
        return await super().post(message, key, timeout)


class Prints(Good):
    async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
        print(message)
        return await super().post(message, key, timeout)


class RecipientInUrl(Good):
    async def post(self, message: Any, key: str, timeout: float) -> httpx.Response:
        log.info("POST %s", httpx.URL("/messages", params={"to": message["to"]}))
        return await super().post(message, key, timeout)


# -- the checks


@pytest.fixture
def stub() -> Iterator[HttpStub]:
    with HttpStub(ANSWERS) as stub:
        yield stub


async def checked(cls: type[Good], stub: HttpStub, **options: Any) -> SenderReport:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    notification = Notification(
        user_id="u1", category="otp", channel="sms", recipient=RECIPIENT, data={"text": TEXT}
    )
    options = {
        "retry_after": 7,
        "secrets": [TOKEN],
        "expects": {"opted_out": InvalidRecipientError},
        **options,
    }
    return await check_sender(lambda: cls(stub.url), stub, notification, **options)


@pytest.mark.parametrize("cls", [Good, Plain, AsksAPerson])
async def test_good(stub: HttpStub, cls: type[Good]) -> None:
    """A good sender passes all checks, async or plain."""
    report = await checked(cls, stub)

    report.verify()
    names = {check.partition(" ")[0] for check in report.checked}
    everything = set(
        "outcome provider retry_after one_request idempotency_key remaining_ttl deadline recovery leaks".split()
    )
    assert names == (everything if cls is Plain else everything | {"blocking", "cancellation"})


REFUSALS = "throttled permanent invalid_recipient unavailable unknown html_page opted_out".split()


@pytest.mark.parametrize(
    ("cls", "findings"),
    [
        (
            NoReceipt,
            ["outcome [accepted]", "recovery [hang_up]", "recovery [hang]", "recovery [cancellation]"],
        ),
        (NeverLooks, [f"outcome [{kind}]" for kind in REFUSALS]),
        (AllTransient, [f"outcome [{kind}]" for kind in REFUSALS]),
        (SendsAndAsks, ["outcome [accepted]"]),
        (DropsAddresses, ["outcome [permanent]"]),
        (AssumesJson, ["outcome [html_page]"]),
        (NoWait, ["retry_after [throttled]"]),
        (Nameless, ["provider [throttled]"]),
        (TriesAgain, ["one_request [unknown]", "one_request [html_page]"]),
        (NoKey, ["idempotency_key [accepted]"] * 3),
        (KeyPerAttempt, ["idempotency_key [accepted]"] * 3),
        (NoTtl, ["remaining_ttl [accepted]"] * 3),
        (Blocks, ["blocking [hang]"]),
        (RecipientAsId, ["leaks [accepted]"] * 3),
        (Uncancellable, ["cancellation [hang]"]),
        (CancelledIsPermanent, ["cancellation [hang]"]),
        (LosesConnections, [f"recovery [{after}]" for after in ("hang_up", "hang", "cancellation")]),
        (SaysAnswer, ["leaks [permanent]"]),
        (KeepsCause, ["leaks [unknown]"]),
        (LogsRecipient, ["leaks [logs]"]),
        (LogsTraceback, ["leaks [logs]"]),
        (LogsToken, ["leaks [logs]"]),
        (Prints, ["leaks [logs]"]),
        (RecipientInUrl, ["leaks [logs]"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_bad(stub: HttpStub, cls: type[Good], findings: list[str]) -> None:
    """Each mistake is found, and nothing else; what is said about it quotes nothing that it leaked."""
    report = await checked(cls, stub)

    with pytest.raises(AssertionError) as raised:
        report.verify()
    found = [f"{f.check} [{f.answer}]" for f in report.findings]
    if cls is LosesConnections:  # nothing works afterwards
        assert set(findings) <= set(found)
    else:
        assert sorted(found) == sorted(findings)
    assert not any(secret in str(raised.value) for secret in (RECIPIENT, TEXT, TOKEN))


@pytest.mark.parametrize("cls", [OwnTimeout, PlainWithoutTimeout])
async def test_no_deadline(stub: HttpStub, cls: type[Good]) -> None:
    """A send that does not mind its time is found, and not waited for."""
    report = await checked(cls, stub, patience=1)

    assert [f"{f.check} [{f.answer}]" for f in report.findings] == ["deadline [hang]"]


async def test_log_level(stub: HttpStub) -> None:
    """A log record of any level that production hears counts; those below do not."""

    class Chatty(Good):
        async def post(self, message: object, key: str, timeout: float) -> httpx.Response:
            log.debug("sending %s", message)
            return await super().post(message, key, timeout)

    (await checked(Chatty, stub)).verify()
    report = await checked(Chatty, stub, log_level=logging.DEBUG, without=["leaks"])
    report.verify()
    assert [f.check for f in (await checked(Chatty, stub, log_level=logging.DEBUG)).findings] == ["leaks"]


async def test_left_out(stub: HttpStub) -> None:
    """What a provider has no use for is left out by name; a name that says nothing is refused."""
    report = await checked(NoTtl, stub, without=["remaining_ttl", "html_page", "hang"])
    report.verify()
    assert not [check for check in report.checked if "_ttl" in check or "html" in check or "[hang]" in check]

    with pytest.raises(ValueError, match="without: unknown ttl; known: outcome"):
        await checked(Good, stub, without=["ttl"])


async def test_nothing_to_look_for(stub: HttpStub) -> None:
    """Without a string to look for no leak could be noticed, so that is an error."""
    short = Notification(user_id="u1", category="otp", channel="sms", recipient="+1", data={"text": "hi"})
    with pytest.raises(ValueError, match="no leak of them could be noticed"):
        await check_sender(lambda: Good(stub.url), stub, short, retry_after=7)


async def test_logging_is_left_as_it_was(stub: HttpStub) -> None:
    """Afterwards the process logs as before."""
    before = logging.getLogRecordFactory(), logging.getLogger().level

    await checked(Good, stub)

    assert (logging.getLogRecordFactory(), logging.getLogger().level) == before


async def test_refused_consumer(stub: HttpStub) -> None:
    """A consumer that a worker refuses is refused here."""

    class Unnamed(Good):
        name = ""

    with pytest.raises(ConfigError, match="needs a `name`"):
        await checked(Unnamed, stub)


async def test_failing_setup(stub: HttpStub) -> None:
    """A consumer that cannot be set up is no finding: it stops the check."""

    class NoSetup(Good):
        async def setup(self) -> None:
            raise RuntimeError("no token")

    with pytest.raises(RuntimeError, match="no token"):
        await checked(NoSetup, stub)


# -- the stub


def test_stub() -> None:
    """It answers as told, keeps what it was asked, and forgets that when it is told anew."""
    with HttpStub(ANSWERS, always={"/token": HttpAnswer(200, {"access_token": "a"})}) as stub:
        assert requests.get(f"{stub.url}/token", timeout=30).json() == {"access_token": "a"}
        assert requests.post(f"{stub.url}/x?to=1", json=[1], timeout=30).status_code == 201
        (request,) = stub.requests
        assert (request.method, request.path, request.json()) == ("POST", "/x?to=1", [1])
        assert b"/x?to=1" in stub.received()[0]
        assert b"[1]" in stub.received()[0]

        stub.answer("html_page")
        page = requests.put(stub.url, timeout=30)
        assert (page.status_code, page.headers["Content-Type"]) == (502, "text/html")
        assert len(stub.requests) == 1
        with pytest.raises(TimeoutError, match=r"^1 of 2 requests after 0 s$"):
            stub.wait_for_requests(2, timeout=0)
        with pytest.raises(KeyError, match="no answer 'gone'; there are: hang, hang_up, accepted"):
            stub.answer("gone")


def test_stub_that_hangs() -> None:
    """A request that hangs ends without an answer when something else is told; so do all when it closes."""
    with HttpStub(ANSWERS) as stub:
        ends: list[Callable[[], None]] = [lambda: stub.answer("accepted"), stub.close]
        for end in ends:
            stub.answer("hang")
            ended = threading.Event()

            def ask(ended: threading.Event = ended) -> None:
                with pytest.raises(requests.ConnectionError):
                    requests.post(stub.url, timeout=30)
                ended.set()

            thread = threading.Thread(target=ask)
            thread.start()
            stub.wait_for_requests()
            end()
            thread.join()
            assert ended.is_set()
