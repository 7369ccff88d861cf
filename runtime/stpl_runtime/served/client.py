"""Calls to a Triton server: each with a deadline, and with a name for what went wrong.

A request without a sequence may be sent again; it is, until the deadline. A request of a sequence
is never sent twice: the server may have taken its frame in, and would take it in again. After any
failure its sequence counts as lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import (
    ChecksumError,
    EnvironmentFault,
    MissingExtraError,
    SequenceLostError,
    UsageError,
)
from stpl_runtime.links.reconnect import Backoff
from stpl_runtime.served.address import Address

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient, InferResult

_AGAIN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""gRPC's words for a server that is away; it may come back."""
_UNSTARTED = "must specify the START flag"
"""Triton's words for a sequence that it does not know."""
_KINDS = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64"}


@dataclass(frozen=True)
class Model:
    """A model of the server that was found ready."""

    name: str
    version: str


@dataclass(frozen=True)
class Part:
    """Where in its sequence a request stands."""

    number: int
    """The correlation ID."""
    start: bool = False
    end: bool = False


class Client:
    """A connection to one server; gRPC makes it anew by itself."""

    def __init__(self, address: Address) -> None:
        """Prepare it; nothing is sent.

        Raises:
            MissingExtraError: tritonclient is not installed.
            UsageError: the certificates cannot be read.
        """
        try:
            from tritonclient.grpc import InferenceServerClient
        except ModuleNotFoundError as error:
            raise MissingExtraError("tritonclient", "triton") from error
        self.address = address
        try:
            self._client: InferenceServerClient = InferenceServerClient(
                address.host,
                ssl=address.tls,
                root_certificates=None if address.ca is None else str(address.ca),
            )
        except OSError as error:
            raise UsageError(
                f"{address.ca}: {error.strerror}", expected="a file of certificates", fix="ca=FILE"
            ) from error

    def server(self) -> str:
        """Name and version of the server.

        Raises:
            EnvironmentFault: no answer within the deadline.
        """
        found = self._asked(lambda left: self._client.get_server_metadata(client_timeout=left))
        return f"{found.name.capitalize()} {found.version}"

    def model(self, name: str, bundle: str) -> Model:
        """A model, its newest version, held to be this bundle's.

        Args:
            name: of the model.
            bundle: the beginning of the manifest's checksum.

        Raises:
            EnvironmentFault: there is none, or it is not ready.
            ChecksumError: it was made of another bundle.
        """
        try:
            found = self._asked(
                lambda left: self._client.get_model_metadata(name, client_timeout=left)
            )
        except _Refused as error:
            raise EnvironmentFault(
                f"{self.address.host} has no model {name} that is ready: {error}",
                expected=f"one of {', '.join(self._names()) or 'none: the server has no model'}",
                fix="stpl-deploy package BUNDLE --out REPOSITORY; --engine triton:grpc://HOST/NAME",
            ) from error
        version = max(found.versions, key=int)
        config = self._asked(
            lambda left: self._client.get_model_config(name, client_timeout=left)
        ).config
        theirs = config.parameters["stpl_bundle"].string_value
        if theirs != bundle:
            raise ChecksumError(
                f"{name} at {self.address.host} was made of the bundle {theirs or 'of nobody'}",
                expected=bundle,
                fix="package this bundle again, or name the model of this bundle",
            )
        if not self._asked(
            lambda left: self._client.is_model_ready(name, version, client_timeout=left)
        ):
            raise EnvironmentFault(
                f"version {version} of {name} at {self.address.host} is not ready",
                expected="a model that is loaded",
                fix="look at the server's log",
            )
        return Model(name, version)

    def run(
        self, model: Model, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Run a model that keeps no state; tried again until the deadline.

        Args:
            model: which one.
            inputs: name -> `(B, ...)`.
            outputs: names of what is wanted.

        Raises:
            EnvironmentFault: no answer within the deadline, or an error of the server's.
        """
        try:
            found: dict[str, NDArray[Any]] = self._asked(
                lambda left: self._result(self._send(model, inputs, outputs, left))
            )
        except _Refused as error:
            raise self._failed(model, error) from error
        return found

    def run_parts(
        self,
        model: Model,
        parts: Sequence[Part],
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
    ) -> dict[str, NDArray[Any]]:
        """Run one frame of several sequences, all at the same time, so that the server may batch.

        Args:
            model: which one.
            parts: of each sequence, B of them.
            inputs: name -> `(B, ...)`; a row for each.
            outputs: names of what is wanted.

        Raises:
            SequenceLostError: of one at least; none may go on.
        """
        left = self.address.deadline_s
        waiting = [
            self._send(
                model,
                {name: array[row : row + 1] for name, array in inputs.items()},
                outputs,
                left,
                part,
            )
            for row, part in enumerate(parts)
        ]
        # All are waited for, also after a failure: they are on their way.
        found = [self._settled(one) for one in waiting]
        rows = [row for row in found if not isinstance(row, _Refused)]
        failures = [failure for failure in found if isinstance(failure, _Refused)]
        if failures:
            raise SequenceLostError(
                f"{model.name} at {self.address.host} lost a sequence: {failures[0]}",
                expected="a server that stays up, and a sequence that rests no longer than the "
                "model's max_sequence_idle_microseconds",
                fix="start the sequence again; stpl-deploy package --idle for longer rests",
            ) from failures[0]
        return {name: np.concatenate([row[name] for row in rows]) for name in outputs}

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _asked(self, ask: Callable[[float], Any]) -> Any:
        """What a question gives; asked again while the server is away, until the deadline.

        Raises:
            EnvironmentFault: the deadline is over.
            _Refused: the server answered with an error.
        """
        until, backoff = monotonic() + self.address.deadline_s, Backoff()
        while isinstance(found := _answer(ask, max(0.1, until - monotonic())), _Refused):
            if not found.is_away:
                raise found
            if monotonic() >= until:
                raise EnvironmentFault(
                    f"{self.address.host} did not answer for {self.address.deadline_s:g} s: "
                    f"{found}",
                    expected="a Triton server that is up",
                    fix="check that it runs, the address, and whether it wants TLS (grpcs://)",
                ) from found
            backoff.wait(Event())
        return found

    def _send(
        self,
        model: Model,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        timeout_s: float,
        part: Part | None = None,
    ) -> Future[InferResult]:
        from tritonclient.grpc import InferInput, InferRequestedOutput

        taken = []
        for name, array in inputs.items():
            one = InferInput(name, list(array.shape), _KINDS[array.dtype.name])
            one.set_data_from_numpy(np.ascontiguousarray(array))
            taken.append(one)
        future: Future[InferResult] = Future()

        def settle(result: InferResult | None, error: Exception | None) -> None:
            if error is None and result is not None:
                future.set_result(result)
            else:
                future.set_exception(error or RuntimeError("no result"))

        where = {} if part is None else {"sequence_id": part.number}
        if part is not None:
            where |= {"sequence_start": part.start, "sequence_end": part.end}
        self._client.async_infer(
            model.name,
            taken,
            settle,
            model_version=model.version,
            outputs=[InferRequestedOutput(name) for name in outputs],
            client_timeout=timeout_s,
            **where,
        )
        return future

    def _result(self, future: Future[InferResult]) -> dict[str, NDArray[Any]]:
        """The outputs, each an own array.

        Raises:
            _Refused: the server answered with an error, or did not.
        """
        from tritonclient.utils import InferenceServerException

        try:
            found = future.result()
        except InferenceServerException as error:
            raise _Refused(error) from error
        names = [output.name for output in found.get_response().outputs]
        try:
            return {name: np.array(found.as_numpy(name)) for name in names}
        except ValueError as error:  # fewer bytes than its shape needs
            raise _Refused(InferenceServerException(f"a broken answer: {error}")) from error

    def _settled(self, future: Future[InferResult]) -> dict[str, NDArray[Any]] | _Refused:
        try:
            return self._result(future)
        except _Refused as error:
            return error

    def _names(self) -> list[str]:
        index = self._asked(
            lambda left: self._client.get_model_repository_index(client_timeout=left)
        )
        return sorted(f"{one.name} ({one.state or 'not loaded'})" for one in index.models)

    def _failed(self, model: Model, error: _Refused) -> EnvironmentFault:
        return EnvironmentFault(
            f"{model.name} at {self.address.host}: {error}",
            expected="an answer",
            fix="look at the server's log",
        )


def _answer(ask: Callable[[float], Any], timeout_s: float) -> Any:
    """What a question gives, or `_Refused`."""
    from tritonclient.utils import InferenceServerException

    try:
        return ask(timeout_s)
    except _Refused as error:
        return error
    except InferenceServerException as error:
        return _Refused(error)


class _Refused(Exception):
    """An error of the server's, or of the way to it, in one line."""

    def __init__(self, error: Any) -> None:
        status = str(error.status() or "").removeprefix("StatusCode.")
        text = " ".join(str(error.message()).split())[:300]
        if _UNSTARTED in text:
            text = "it does not know the sequence (ended after its rest, or begun anew)"
        super().__init__(f"{text} ({status})" if status else text)
        self.is_away = status in _AGAIN
