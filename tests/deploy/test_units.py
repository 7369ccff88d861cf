"""The unit of systemd that the wheel brings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_docs import problems

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "runtime" / "deploy" / "stpl-stream@.service"
PROGRAM = "/opt/stpl-deploy/bin/stpl-deploy"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_reads_it(tmp_path: Path) -> None:
    copy = tmp_path / "stpl-stream@radar.service"
    copy.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")
    copy.write_text(copy.read_text().replace("Restart=on-failure", "Restart=when-it-fails"))
    judged = subprocess.run(command, capture_output=True, text=True)
    assert "when-it-fails" in judged.stderr


def test_the_program_takes_its_command_line() -> None:
    text = UNIT.read_text().replace("\\\n", "")
    (line,) = re.findall(rf"^ExecStart={PROGRAM} (.+)$", text, re.MULTILINE)
    assert problems(f"stpl-deploy {line}") == []


def test_the_page_that_installs_it_names_its_places() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    section = page.partition("## On a box")[2].partition("\n## ")[0]
    folder, _, _ = PROGRAM.rpartition("/bin/")
    assert f"python3 -m venv {folder}\n" in section
    assert f"cp {folder}/share/stpl-deploy/{UNIT.name} /etc/systemd/system/" in section
    assert "/etc/stpl-deploy/%i.toml" in UNIT.read_text()
    assert "/etc/stpl-deploy/radar.toml" in section
    assert "ReadWritePaths=-/srv/stpl/out" in UNIT.read_text()
    assert "/srv/stpl/out\n" in section
    assert f"systemctl enable --now {UNIT.name.replace('@.service', '@radar')}" in section
