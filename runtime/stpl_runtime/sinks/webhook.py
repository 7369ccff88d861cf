"""Nowcasts to a web server: a POST of `sinks.summary` for each, signed, and tried again.

    webhook:https://host/path                       JSON
    webhook,attach=npz:https://host/path            a form: `nowcast`, the JSON, and `file`
    webhook,secret_env=NAME:https://host/path       signed with what that variable holds
    webhook,token_env=NAME:https://host/path        a bearer token; also token_file=FILE
    webhook,ca=FILE:https://host/path               the certificate authority to trust
    webhook,timeout=20,tries=5:https://host/path    seconds for one answer; tries

The signature is HMAC-SHA256 of the whole body, as `X-Hub-Signature-256: sha256=<hex>` (the form
that many receivers know), and `Idempotency-Key` names the nowcast, since a try whose answer was
lost is repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from stpl_core.errors import SinkError, UsageError
from stpl_core.fetch.http_headers import retry_after_s
from stpl_core.readers.libraries import reads_with
from stpl_runtime.links.reconnect import Backoff, reason_of, without_credentials
from stpl_runtime.links.secrets import secret
from stpl_runtime.links.web_access import TOKEN_OPTIONS, bearer, trusted
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.options import Options
from stpl_runtime.sink import KeepsFiles, SinkSpec
from stpl_runtime.sinks.file_format import FileFormat, attachments
from stpl_runtime.sinks.summary import summary_line

if TYPE_CHECKING:
    import httpx

_OPTIONS = ("attach", "secret_env", "timeout", "tries", *TOKEN_OPTIONS)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another try may change."""
_MOST_S = 30.0
"""The longest wait that a server may ask for, and between tries."""
_BODY_BYTES, _BODY_S = 65536, 5.0
"""Of an answer's body, which nobody reads: more than this ends the connection."""


def open_sink(rest: str, spec: SinkSpec | None = None) -> WebhookSink:
    """`webhook:URL`; see above.

    Raises:
        UsageError: no URL, or an option that is not right.
        MissingExtraError: httpx is not installed.
    """
    return WebhookSink(rest, (spec or SinkSpec()).options)


class WebhookSink:
    """Keeps `stpl_runtime.sink.Sink`."""

    def __init__(self, url: str, given: Mapping[str, str]) -> None:
        """Prepare; nothing is sent. See `open_sink`."""
        with reads_with("http"):
            import httpx
        options = Options("the sink webhook", given, _OPTIONS, "--sink webhook,")
        try:
            parts = httpx.URL(url)
            fits = parts.scheme in ("http", "https") and bool(parts.host.encode("idna"))
        except (httpx.InvalidURL, UnicodeError):  # the latter: a host that no name server takes
            fits = False
        if not fits:
            raise UsageError(
                f"--sink webhook:{without_credentials(url)} is no URL",
                expected="http:// or https://",
                fix="--sink webhook:https://HOST/PATH",
            )
        # Such URLs carry tokens anywhere: the name has host, port and a mark by which two differ.
        mark = hashlib.sha256(url.encode()).hexdigest()[:6]
        self.name = f"webhook:{parts.scheme}://{parts.netloc.decode()}/({mark})"
        self.beside: tuple[KeepsFiles, ...] = ()
        self._url, self._attach, self._secret = url, _attached(options), _secret(options)
        self._tries = int(options.number("tries", 4, least=1, most=100))
        timeout_s = options.number("timeout", 10.0, least=0.1, most=600.0)
        self._client = httpx.Client(
            timeout=timeout_s,
            follow_redirects=False,
            headers=bearer(options),
            verify=trusted(options.text("ca")),
        )
        self._stop, self._busy = threading.Event(), threading.Lock()

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`; returns when the server has taken it."""
        request = self._request(nowcast)
        with self._busy:
            self._post(request)

    def _post(self, request: httpx.Request) -> None:
        import httpx

        backoff, reason = Backoff(0.5, _MOST_S), "was closed"
        for left in reversed(range(self._tries)):
            if self._stop.is_set():
                break
            asked_s = 0.0
            try:
                response = self._answer(request)
                if response.is_success:
                    return
                reason = f"answered {response.status_code} {response.reason_phrase}".rstrip()
                if response.status_code not in _AGAIN:
                    raise self._error(reason, "a URL that takes this POST")
                asked_s = retry_after_s(response.headers.get("retry-after"), _MOST_S) or 0.0
            except httpx.RequestError as error:
                reason = reason_of(error)
            if not left:
                break
            if asked_s:
                self._stop.wait(asked_s)
            else:
                backoff.wait(self._stop)
        raise self._error(reason, "a server that is up")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        """The answer's head; of its body so much that the connection can be kept, or none."""
        import httpx

        response = self._client.send(request, stream=True)
        with contextlib.closing(response), contextlib.suppress(httpx.HTTPError):
            until, size = time.monotonic() + _BODY_S, 0
            for part in response.iter_raw():
                size += len(part)
                if size > _BODY_BYTES or time.monotonic() > until:
                    break  # one that never ends holds nobody up
        return response  # what the head says stands, even where the body broke off

    def close(self) -> None:
        """End what is being tried again, and the connection."""
        self._stop.set()
        if self._busy.acquire(timeout=2.0):  # else the answer that is waited for ends it
            self._client.close()
            self._busy.release()

    def _request(self, nowcast: Nowcast) -> httpx.Request:
        document = summary_line(nowcast, self.beside)
        headers = {"Idempotency-Key": f"{quote(nowcast.stream) or 'nowcast'}/{nowcast.name}"}
        if self._attach is not None:
            name = f"{nowcast.name}{self._attach.suffixes[0]}"
            content = self._attach.bytes_of(nowcast)
            request = self._client.build_request(
                "POST",
                self._url,
                headers=headers,
                files={
                    "nowcast": ("nowcast.json", document, "application/json"),
                    "file": (name, content, "application/octet-stream"),
                },
            )
        else:
            headers["Content-Type"] = "application/json"
            request = self._client.build_request(
                "POST", self._url, headers=headers, content=document
            )
        if self._secret:
            signature = hmac.new(self._secret, request.read(), hashlib.sha256).hexdigest()
            request.headers["X-Hub-Signature-256"] = f"sha256={signature}"
        return request

    def _error(self, reason: str, expected: str) -> SinkError:
        fix = "check the URL and its server"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            expected, fix = "a certificate that is trusted here", "webhook,ca=FILE: with its CA"
        elif "answered 401" in reason or "answered 403" in reason:
            fix = "webhook,token_env=NAME: or token_file=FILE, with the token that it wants"
        return SinkError(f"{self.name} {reason}", expected=expected, fix=fix)


def _attached(options: Options) -> FileFormat | None:
    kinds = attachments()
    kind = kinds.get(options.choice("attach", ("none", *kinds), "none"))
    if kind is not None:
        kind.check_installed()
    return kind


def _secret(options: Options) -> bytes | None:
    name = options.text("secret_env")
    if not name:
        return None
    return secret(name, "the secret that signs webhooks").encode()
