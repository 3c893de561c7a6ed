"""A container with control groups of version 2, made here: its root group has processes, so it passes nothing on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GROUP = "concordat-test-container"

INSIDE = """
import sys
from pathlib import Path
from concordat_devcluster import cgroups

root, controller = Path(sys.argv[1]), sys.argv[2]
cgroups._NEEDED_V2 = cgroups._USED_V2 = (controller,)  # a host may use the others in version 1
own = (root / "cgroup.procs").read_text().split()
assert own and (root / "cgroup.type").is_file(), "this is no root of a container"
cgroups.create("concordat-0", root)
assert (root / "cgroup.procs").read_text() == ""
assert set(own) <= set((root / "init/cgroup.procs").read_text().split())
assert controller in (root / "concordat-0/pods/cgroup.controllers").read_text().split()
cgroups.remove("concordat-0", root)
"""


def test_processes_of_a_container_are_moved_aside(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    script = f"""
        set -eu
        mount -t cgroup2 none {outside}
        controller=$(cut -d ' ' -f 1 {outside}/cgroup.controllers)
        [ -n "$controller" ] || {{ echo "no controller is left for version 2 on this machine"; exit 77; }}
        echo "+$controller" > {outside}/cgroup.subtree_control
        mkdir {outside}/{GROUP}
        leave() {{
            cat {outside}/{GROUP}/cgroup.procs {outside}/{GROUP}/init/cgroup.procs 2>/dev/null |
                while read -r p; do echo "$p" > {outside}/cgroup.procs || true; done
            rmdir {outside}/{GROUP}/init {outside}/{GROUP}
        }}
        trap leave EXIT
        echo $$ > {outside}/{GROUP}/cgroup.procs
        unshare --cgroup --mount sh -euc '
            mount -t cgroup2 none {inside}
            exec "$0" -c "$1" {inside} "$2"' "{sys.executable}" "$0" "$controller"
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, INSIDE], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.fail(done.stdout)
    assert done.returncode == 0, done.stderr
