"""The few CUDA calls that a recurrent session needs, on one stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stpl_core.errors import EnvironmentFault, MissingExtraError


class Device(Protocol):
    """Memory and order of work. Addresses are plain integers, sizes bytes; work is queued."""

    stream: int
    """Handle of the stream that all work goes to."""

    def allocate(self, size: int) -> int:
        """Device memory."""
        ...

    def allocate_pinned(self, size: int) -> int:
        """Host memory that the device reads and writes directly."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy; either side may be device or pinned memory."""
        ...

    def zero(self, target: int, size: int) -> None:
        """Queue filling with zero bytes."""
        ...

    def wait(self) -> None:
        """Until all queued work is done."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues, without running it; the result queues it again in one call."""
        ...

    def time(self, work: Callable[[], None]) -> float:
        """Milliseconds that the queued `work` takes on the device, by events; waits for it."""
        ...

    def close(self) -> None:
        """Give the stream and the recorded graphs back."""
        ...


class CudaDevice:
    """`Device` by NVIDIA's own bindings (cuda-python)."""

    def __init__(self, extra: str) -> None:
        """Make the stream.

        Args:
            extra: of stpl-deploy, which brings the bindings.

        Raises:
            MissingExtraError: cuda-python is not installed.
            EnvironmentFault: there is no device or driver.
        """
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingExtraError("cuda-python", extra) from error
        self._cuda: Any = runtime
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)
        self._graphs: list[Any] = []

    def allocate(self, size: int) -> int:
        """See the protocol."""
        return int(self._call("cudaMalloc", size))

    def allocate_pinned(self, size: int) -> int:
        """See the protocol."""
        return int(self._call("cudaMallocHost", size))

    def free(self, address: int) -> None:
        """See the protocol."""
        self._call("cudaFree", address)

    def free_pinned(self, address: int) -> None:
        """See the protocol."""
        self._call("cudaFreeHost", address)

    def copy(self, target: int, source: int, size: int) -> None:
        """See the protocol; the driver tells device from host memory by the address."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpyAsync", target, source, size, kind, self._stream)

    def zero(self, target: int, size: int) -> None:
        """See the protocol."""
        self._call("cudaMemsetAsync", target, 0, size, self._stream)

    def wait(self) -> None:
        """See the protocol."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See the protocol."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:  # a stream left in capture is of no use to anybody
            graph = self._call("cudaStreamEndCapture", self._stream)
        recorded = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._graphs.append(recorded)
        return lambda: self._call("cudaGraphLaunch", recorded, self._stream)

    def time(self, work: Callable[[], None]) -> float:
        """See the protocol."""
        begin, end = self._call("cudaEventCreate"), self._call("cudaEventCreate")
        try:
            self._call("cudaEventRecord", begin, self._stream)
            work()
            self._call("cudaEventRecord", end, self._stream)
            self._call("cudaEventSynchronize", end)
            return float(self._call("cudaEventElapsedTime", begin, end))
        finally:
            self._call("cudaEventDestroy", begin)
            self._call("cudaEventDestroy", end)

    def close(self) -> None:
        """See the protocol."""
        for recorded in self._graphs:
            self._call("cudaGraphExecDestroy", recorded)
        self._graphs.clear()
        self._call("cudaStreamDestroy", self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime; returns its result, raises on its error code."""
        code, *results = getattr(self._cuda, name)(*arguments)
        if code != self._cuda.cudaError_t.cudaSuccess:
            raise EnvironmentFault(
                f"{name} fails: {code.name}",
                expected="a working NVIDIA driver and free device memory",
                fix="nvidia-smi shows both",
            )
        return results[0] if results else None
