"""CPUs by control group, on trees as systemd, Docker and Kubernetes make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpl_core.host.cgroup import cpu_quota


def tree(root: Path, files: dict[str, str], membership: str) -> tuple[Path, Path]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    lines = root / "membership"
    lines.write_text(membership)
    return lines, root


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1.5),
        # a systemd service: its own quota, and its slice's
        (
            {
                "system.slice/a.service/cpu.max": "max 100000",
                "system.slice/cpu.max": "300000 100000",
            },
            "0::/system.slice/a.service\n",
            3.0,
        ),
        # a container that sees the host's path and its own root
        ({"cpu.max": "200000 100000"}, "0::/kubepods/pod1/abc\n", 2.0),
        # version 1, its controllers mounted together
        (
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            },
            "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            0.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n", None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n", 4.0),
        # both versions: the quota is in version 1, version 2 is empty
        (
            {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"},
            "1:cpu:/x\n0::/x\n",
            2.5,
        ),
        ({}, "", None),
    ],
)
def test_the_least_quota_above_the_process(
    tmp_path: Path, files: dict[str, str], membership: str, expected: float | None
) -> None:
    assert cpu_quota(*tree(tmp_path, files, membership)) == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "no", tmp_path) is None
