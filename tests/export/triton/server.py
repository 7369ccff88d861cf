"""A real Triton server with its Python backend, from the wheel of nvidia-pytriton.

The wheel asks for a numpy below 2, and nothing but its binaries is used here. So it is not among
the project's dependencies; it is found where it is installed, or where `make venv-triton` puts it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.links.brokers import free_port, wait_until

ROOT = Path(__file__).parents[3]


def find_package() -> Path:
    """The folder of the package `pytriton`; the test is skipped where there is none."""
    spec = importlib.util.find_spec("pytriton")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [
        path for path in (*map(Path, places), ROOT / ".venv-triton" / "pytriton") if path.is_dir()
    ]
    if not found:
        pytest.skip("no Triton server here; try: make venv-triton")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stub = found[0] / "tritonserver" / "python_backend_stubs" / version
    if not stub.is_dir():
        pytest.skip(f"its Python backend has no Python {version}")
    library = Path(sysconfig.get_config_var("LIBDIR")) / f"libpython{version}.so.1.0"
    if not library.is_file():
        pytest.skip(f"this Python has no {library.name}, which Triton's Python backend loads")
    return found[0]


class TritonServer:
    """A process that serves a repository; it can be killed and started again at its port."""

    def __init__(
        self, repository: Path, folder: Path, tls: tuple[Path, Path] | None = None
    ) -> None:
        """Copy the backend to `folder`, with the stub of this Python beside it.

        Args:
            repository: what it serves.
            folder: for its files.
            tls: certificate and key; None: no TLS.
        """
        package = find_package()
        self._home = package / "tritonserver"
        self._libraries = package.parent / "nvidia_pytriton.libs"
        backend = folder / "backends" / "python"
        shutil.copytree(self._home / "backends" / "python", backend, dirs_exist_ok=True)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stub = "triton_python_backend_stub"
        shutil.copy(self._home / "python_backend_stubs" / version / stub, backend / stub)
        (backend / stub).chmod(0o755)
        binary = folder / "tritonserver"
        shutil.copy(self._home / "bin" / "tritonserver", binary)
        binary.chmod(0o755)
        self.port = free_port()
        self.log = folder / "server.log"
        self._command = [
            str(binary),
            f"--model-repository={repository}",
            f"--backend-directory={folder / 'backends'}",
            f"--grpc-port={self.port}",
            "--grpc-address=127.0.0.1",
            "--allow-http=false",
            "--allow-metrics=false",
            "--model-control-mode=explicit",
            "--load-model=*",
        ]
        self._ca: Path | None = None
        if tls is not None:
            self._ca, key = tls
            self._command += ["--grpc-use-ssl=true", f"--grpc-server-cert={self._ca}"]
            self._command += [f"--grpc-server-key={key}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As in `triton:ADDRESS`, without a name."""
        return f"grpc{'' if self._ca is None else 's'}://localhost:{self.port}"

    @property
    def options(self) -> str:
        """What follows the name."""
        return "" if self._ca is None else f"&ca={self._ca}"

    def client(self) -> Any:
        """A client of Triton's own."""
        from tritonclient.grpc import InferenceServerClient

        tls = {} if self._ca is None else {"ssl": True, "root_certificates": str(self._ca)}
        return InferenceServerClient(f"localhost:{self.port}", **tls)

    def start(self) -> None:
        """Start it, and wait until every model is ready."""
        from tritonclient.utils import InferenceServerException

        libraries = (str(self._libraries), sysconfig.get_config_var("LIBDIR"))
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": ":".join(libraries),
            # The backend's Python has the packages of the `python3` that it finds first.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        client = self.client()

        def is_ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            try:
                return bool(client.is_server_ready())
            except InferenceServerException:
                return False

        wait_until(is_ready, 120.0)
        client.close()

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10.0)
            self._process = None
