"""Files that a source does not read are reported, once; a source of nothing else is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError
from stpl_runtime.engine import Session
from stpl_runtime.ingest.unread_files import Unread
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.source import SourceSpec
from stpl_runtime.sources.folder import FolderSource
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import CADENCE_S, Cli, ListSource, picture, run_alone, slot_time
from tests.runtime.sources.source_reader import SourceReader

SPEC = SourceSpec((1, 16, 16), FrameCodec())


def save(folder: Path, slot: int) -> None:
    np.save(folder / f"r{slot_time(slot):%Y%m%d%H%M}.npy", picture(slot))


def test_a_folder_of_unknown_kinds(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    """As `predict` says it: exit 2, what lies there and what would be read."""
    for n in range(3):
        (tmp_path / f"r{n}.xyz").write_text("no frame")
    (tmp_path / "notes").write_text("none either")
    code, out, err = cli("stream", bundle.path, tmp_path, "--idle-timeout", 1)
    assert code == 2
    assert "passed over: 4 files" in out
    assert err.count("passes over 4 files (") == 1
    error = err.splitlines()[-1]
    assert error.startswith(f"error: folder:{tmp_path} holds 4 files (")
    assert {".xyz", "no ending"} <= set(error.partition("(")[2].partition(")")[0].split(", "))
    predicted = cli("predict", bundle.path, tmp_path, "--out", tmp_path.parent / "out.npz")
    assert predicted[0] == code
    expected = error.partition("expected ")[2].partition(";")[0]
    assert expected
    assert expected in predicted[2]


def test_a_folder_of_subfolders(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "20260131").mkdir()
    for slot in range(5):
        save(tmp_path / "20260131", slot)
    words = ("stream", bundle.path, tmp_path, "--idle-timeout", 1, "--json")
    code, out, err = cli(*words)
    assert (code, json.loads(out)["passed_over"]) == (0, 1)  # files may yet come beside it
    assert err.count("passes over 1 subfolder; it reads") == 1
    assert "; --source-option recursive=yes reads subfolders too" in err
    (tmp_path / "notes.xyz").touch()
    code, _, err = cli(*words)
    assert code == 2
    assert "holds 1 file (.xyz) and 1 subfolder, and no frame" in err
    assert "try: --source-option recursive=yes reads subfolders too; or " in err
    code, out, err = cli(*words, "--source-option", "recursive=yes")
    assert (code, json.loads(out)["counts"]["used"]) == (0, 5)
    assert "passes over 1 file (.xyz); it reads" in err


def test_other_files_beside_frames_are_told_and_counted(
    cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    for slot in range(5):
        save(tmp_path, slot)
        (tmp_path / f"{slot}.xml").write_text("<meta/>")
    (tmp_path / "out").mkdir()
    (tmp_path / "new.npy.part").write_text("being written")
    (tmp_path / ".hidden.xml").write_text("hidden")
    code, out, err = cli("stream", bundle.path, tmp_path, "--idle-timeout", 1, "--json")
    assert (code, json.loads(out)["passed_over"]) == (0, 5)
    assert err.count(f"folder:{tmp_path}: passes over 5 files (.xml); it reads .npy, .png, ") == 1


def test_an_empty_folder_is_only_quiet(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    assert cli("stream", bundle.path, tmp_path, "--idle-timeout", 0.5)[0] == 0


def test_each_is_counted_once_while_it_stays(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").touch()
    source = FolderSource(tmp_path, SPEC, rescan_s=0.01)
    with SourceReader(source) as reader:
        for slot in range(3):
            save(tmp_path, slot)
            reader.wait_for(slot + 1)
    assert source.unread_files.now().files == 1


def test_what_goes_is_forgotten_and_kinds_are_bounded() -> None:
    unread = Unread((".npy",))
    for n in range(1000):
        unread.listed([(f"{n}.kind{n}", False), ("a", True)])
    now = unread.now()
    assert (now.files, now.folders, len(unread._there)) == (1000, 1, 2)
    assert str(now) == (
        "1,000 files (.kind0, .kind1, .kind2, .kind3, .kind4, others) and 1 subfolder"
    )


def test_an_archive_without_a_frame(bundle: Bundle, session: Session) -> None:
    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
    stream = Stream(nowcaster, ListSource([]), ledger=ledger)
    with pytest.raises(FrameError, match="list ended and gave no frame; expected at least one"):
        run_alone(stream)
    assert stream.report().ended == "error"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


def test_a_bucket_of_unknown_kinds(
    cli: Cli, bundle: Bundle, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = boto3.resource("s3", endpoint_url=endpoint).Bucket("odd")
    made.create()
    for key in ("in/a.xyz", "in/b.xyz", "in/.c.xyz"):
        made.put_object(Key=key, Body=b"no frame")
    options = ("--source-option", f"endpoint={endpoint}", "--source-option", "interval=0.1")
    code, _, err = cli("stream", bundle.path, "s3://odd/in/", *options, "--idle-timeout", 1.5)
    assert code == 2
    assert err.count("passes over 2 files (.xyz)") == 1
    assert "error: s3://odd/in/ holds 2 files (.xyz), and no frame" in err
