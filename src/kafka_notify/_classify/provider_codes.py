"""Tables for `classify`: providers' own codes, and the exceptions of client libraries.

The sources are the providers' public references. The classes: certainly not sent (transient, throttled), possibly sent
(unknown outcome), never to be sent (permanent, invalid recipient), a problem of our account or configuration (provider
unavailable).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

ErrorKind = Callable[..., DeliveryError]
"""A `DeliveryError` class, or a `functools.partial` of one: called with the code and `provider=`."""
Codes = Mapping[str, ErrorKind]


def _table(*rows: tuple[ErrorKind, str]) -> Codes:
    return MappingProxyType({code: kind for kind, codes in rows for code in codes.split()})


_AWS: Final = _table(
    # AWS answers many of these with a plain 400
    (ThrottledError, "TooManyRequestsException ThrottlingException Throttling ThrottledException"),
    (ThrottledError, "TooManyRequests RequestLimitExceeded SlowDown LimitExceededException"),
    (
        ProviderUnavailableError,
        "AccountSuspendedException SendingPausedException AccountSendingPausedException",
    ),
    (ProviderUnavailableError, "ConfigurationSetSendingPausedException MailFromDomainNotVerifiedException"),
    (
        ProviderUnavailableError,
        "NotFoundException ConfigurationSetDoesNotExistException PlatformApplicationDisabled",
    ),
    (ProviderUnavailableError, "AccessDenied AccessDeniedException ExpiredToken ExpiredTokenException"),
    (ProviderUnavailableError, "InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch"),
    (
        ProviderUnavailableError,
        "RequestExpired RequestTimeTooSkewed IncompleteSignature MissingAuthenticationToken",
    ),
    (InvalidRecipientError, "OptedOutException EndpointDisabled"),
    (PermanentError, "BadRequestException MessageRejected"),
)

PROVIDER_CODES: Final[Mapping[str, Codes]] = MappingProxyType(
    {
        "twilio": _table(
            (ThrottledError, "20429"),  # never processed, says Twilio
            (partial(ThrottledError, scope="sender", retry_after=900), "21611"),  # the sender's queue is 10 h long
            (UnknownOutcomeError, "20500"),
            # Account, API endpoint, sender's number, Messaging Service: the same for every message
            (ProviderUnavailableError, "10001 20003 20005 20403 20404 21212 21601 21603 21606 21607 21608"),
            (ProviderUnavailableError, "21659 21660 21661 21701 21703 21704 21705 63002 63007"),
            (ThrottledError, "63017 60728"),
            (partial(ThrottledError, retry_after=900), "63018 63038"),  # daily quotas
            (InvalidRecipientError, "21211 21265 21266 21268 21610 21614 21635"),
            (PermanentError, "21408 21602 21612 21617"),
        ),
        "fcm": _table(
            (InvalidRecipientError, "UNREGISTERED SENDER_ID_MISMATCH"),
            (ProviderUnavailableError, "THIRD_PARTY_AUTH_ERROR APNS_AUTH_ERROR UNAUTHENTICATED PERMISSION_DENIED"),
            # FCM's own advice: a minute unless told otherwise, and never sooner than 10 seconds
            (partial(ThrottledError, retry_after=60), "QUOTA_EXCEEDED RESOURCE_EXHAUSTED http.429"),
            (partial(ThrottledError, retry_after=10), "UNAVAILABLE"),
            (UnknownOutcomeError, "INTERNAL DEADLINE_EXCEEDED CANCELLED UNKNOWN"),
            (PermanentError, "INVALID_ARGUMENT"),
        ),
        "apns": _table(
            (InvalidRecipientError, "BadDeviceToken Unregistered ExpiredToken http.410"),
            (partial(ThrottledError, scope="recipient"), "TooManyRequests"),  # counted per device token
            (ProviderUnavailableError, "DeviceTokenNotForTopic BadTopic MissingTopic TopicDisallowed"),
            (ProviderUnavailableError, "BadCertificate BadCertificateEnvironment MissingProviderToken"),
            (ProviderUnavailableError, "InvalidProviderToken TooManyProviderTokenUpdates Forbidden"),
            (TransientError, "ExpiredProviderToken ServiceUnavailable Shutdown"),
            (UnknownOutcomeError, "InternalServerError"),
        ),
        # Its errors are free text, so the status decides. Without an idempotency key a 503 is as uncertain as a 500.
        "sendgrid": _table((UnknownOutcomeError, "http.503")),
        "ses": _AWS,
        "aws": _AWS,
    }
)  # fmt: skip
"""Errors of providers' own codes, by provider. Extend a table with `codes=`: `{**PROVIDER_CODES["fcm"], "X": ...}`."""


def _exceptions(*rows: tuple[type[DeliveryError], str, str]) -> Mapping[str, tuple[type[DeliveryError], str]]:
    return MappingProxyType(
        {
            f"{library}.{name}": (kind, f"{library}.{name}")
            for kind, library, names in rows
            for name in names.split()
        }
    )


EXCEPTION_CODES: Final[Mapping[str, tuple[type[DeliveryError], str]]] = MappingProxyType(
    {
        **_exceptions(
            (TransientError, "httpx", "ConnectTimeout ConnectError PoolTimeout"),
            (PermanentError, "httpx", "InvalidURL UnsupportedProtocol LocalProtocolError"),
            (ProviderUnavailableError, "httpx", "ProxyError TooManyRedirects"),
            (UnknownOutcomeError, "httpx", "ReadTimeout WriteTimeout TimeoutException ReadError WriteError"),
            (UnknownOutcomeError, "httpx", "CloseError RemoteProtocolError DecodingError NetworkError"),
            (UnknownOutcomeError, "httpx", "TransportError RequestError"),
            (TransientError, "requests", "ConnectTimeout"),
            (PermanentError, "requests", "InvalidURL MissingSchema InvalidSchema URLRequired InvalidHeader"),
            (ProviderUnavailableError, "requests", "ProxyError InvalidProxyURL TooManyRedirects"),
            (UnknownOutcomeError, "requests", "ReadTimeout Timeout SSLError ConnectionError ChunkedEncodingError"),
            (UnknownOutcomeError, "requests", "RetryError RequestException"),
            (TransientError, "urllib3", "NewConnectionError NameResolutionError ConnectTimeoutError EmptyPoolError"),
            (ProviderUnavailableError, "urllib3", "ProxyError"),
            (UnknownOutcomeError, "urllib3", "ReadTimeoutError ProtocolError SSLError MaxRetryError HTTPError"),
            (UnknownOutcomeError, "urllib", "URLError"),
            (TransientError, "aiohttp", "ClientConnectorError ConnectionTimeoutError"),
            (PermanentError, "aiohttp", "InvalidURL NonHttpUrlClientError"),
            (ProviderUnavailableError, "aiohttp", "ClientProxyConnectionError ClientHttpProxyError TooManyRedirects"),
            (ProviderUnavailableError, "aiohttp", "ClientConnectorCertificateError ServerFingerprintMismatch"),
            (ProviderUnavailableError, "aiohttp", "RedirectClientError"),
            (UnknownOutcomeError, "aiohttp", "ServerTimeoutError SocketTimeoutError ServerDisconnectedError"),
            (UnknownOutcomeError, "aiohttp", "ClientOSError ClientPayloadError ClientConnectionError ClientError"),
            (TransientError, "botocore", "EndpointConnectionError ConnectTimeoutError ConnectionError"),
            (PermanentError, "botocore", "ParamValidationError"),
            (ProviderUnavailableError, "botocore", "ProxyConnectionError NoCredentialsError PartialCredentialsError"),
            (ProviderUnavailableError, "botocore", "CredentialRetrievalError TokenRetrievalError NoAuthTokenError"),
            (ProviderUnavailableError, "botocore", "SSOError NoRegionError"),
            (UnknownOutcomeError, "botocore", "ReadTimeoutError ConnectionClosedError SSLError HTTPClientError"),
            (TransientError, "google", "TransportError"),  # google-auth, which fetches firebase_admin's access token
            (ProviderUnavailableError, "google", "RefreshError DefaultCredentialsError"),
            (UnknownOutcomeError, "firebase_admin", "FirebaseError"),
            (UnknownOutcomeError, "python_http_client", "HTTPError"),
            # The connection was lost. The readers of these exceptions look for the command in the traceback.
            (UnknownOutcomeError, "smtplib", "SMTPServerDisconnected"),
            (ProviderUnavailableError, "smtplib", "SMTPException"),  # no login method that both sides support
            (ProviderUnavailableError, "aiosmtplib", "SMTPConnectError SMTPConnectTimeoutError SMTPException"),
            (UnknownOutcomeError, "aiosmtplib", "SMTPServerDisconnected SMTPReadTimeoutError SMTPTimeoutError"),
            (TransientError, "http", "NotConnected ImproperConnectionState"),
            (UnknownOutcomeError, "http", "HTTPException"),
            (TransientError, "socket", "gaierror herror"),
            (ProviderUnavailableError, "ssl", "SSLCertVerificationError"),
            (UnknownOutcomeError, "ssl", "SSLError"),
        ),
        **{
            f"{module}.TimeoutError": (UnknownOutcomeError, "timeout")
            for module in ("builtins", "asyncio", "concurrent")
        },
        "builtins.ConnectionRefusedError": (TransientError, "ConnectionRefusedError"),
        "builtins.ConnectionError": (UnknownOutcomeError, "ConnectionError"),
        "builtins.ConnectionResetError": (UnknownOutcomeError, "ConnectionResetError"),
        "builtins.ConnectionAbortedError": (UnknownOutcomeError, "ConnectionAbortedError"),
        "builtins.BrokenPipeError": (UnknownOutcomeError, "BrokenPipeError"),
    }
)  # fmt: skip
"""Client libraries' exceptions, as the library's name and the class's: what they mean, and our code for them."""
