"""MNIST's idx files, and the download against a real server on this machine."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stpl_core.errors import EnvironmentFault, FrameError
from stpl_core.fetch.sets import public_set
from stpl_train.data import mnist
from stpl_train.data.digits import digit_images

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "mnist"
needs_mnist = pytest.mark.skipif(not SHARED.is_dir(), reason="MNIST's files are not at hand")


def idx(images: np.ndarray) -> bytes:
    return np.array([0x803, *images.shape], dtype=">u4").tobytes() + images.tobytes()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server for a folder: its address, the folder, and what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder, asked
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_gzipped_or_not(tmp_path: Path, zipped: bool) -> None:
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    path = tmp_path / (mnist.TRAIN_IMAGES + (".gz" if zipped else ""))
    path.write_bytes(gzip.compress(idx(images)) if zipped else idx(images))
    np.testing.assert_array_equal(mnist.read_idx_images(mnist.find_images(tmp_path)), images)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (idx(np.zeros((3, 4, 5), np.uint8))[:-1], "holds 75 bytes; expected 76"),
        (b"\x00\x00\x08\x01" + bytes(20), "starts with 00000801"),
        (b"", "starts with nothing"),
        (gzip.compress(idx(np.zeros((3, 4, 5), np.uint8)), mtime=0)[:-9], "cannot be unpacked"),
    ],
)
def test_a_broken_idx_file_is_told_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / mnist.TRAIN_IMAGES
    path.write_bytes(content)
    with pytest.raises(FrameError, match=reason):
        digit_images(str(tmp_path), 28, "training")


def test_a_missing_path_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"data\.images=scikit-learn"):
        digit_images(str(tmp_path / "nowhere"), 28, "training")


@needs_mnist
def test_mnist_is_downloaded_once(
    server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder, asked = server
    name = f"{mnist.TRAIN_IMAGES}.gz"
    (folder / name).write_bytes((SHARED / name).read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # The first mirror has nothing: the second is asked.
    _mirrors(monkeypatch, f"{address}/gone", address)
    first = digit_images("mnist", 28, "training")
    np.testing.assert_array_equal(first, digit_images(str(SHARED), 28, "training"))
    digit_images("mnist", 28, "training")
    assert f"/gone/{name}" in asked
    assert asked.count(f"/{name}") == 1
    assert (tmp_path / "stpl-deploy" / "mnist" / mnist.TRAIN_IMAGES).is_file()


def test_offline_says_what_to_type(
    server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _mirrors(monkeypatch, server[0])
    with pytest.raises(EnvironmentFault, match=r"--set data\.images=scikit-learn") as caught:
        digit_images("mnist", 28, "training")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def _mirrors(monkeypatch: pytest.MonkeyPatch, *mirrors: str) -> None:
    known = public_set("mnist").model_copy(update={"mirrors": mirrors})
    monkeypatch.setattr(mnist, "public_set", lambda name: known)


@needs_mnist
def test_validation_digits_are_the_tail_of_the_training_images() -> None:
    training = digit_images(str(SHARED), 28, "training")
    held_out = digit_images(str(SHARED), 28, "validation")
    assert (len(training), len(held_out)) == (50000, 10000)
    every = mnist.read_idx_images(mnist.find_images(SHARED))
    np.testing.assert_array_equal(held_out, every[50000:])
    assert digit_images(str(SHARED), 14, "validation").shape == (10000, 14, 14)
