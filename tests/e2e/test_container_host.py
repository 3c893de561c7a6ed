"""A container with control groups of version 2, made here: its root group has processes, so it passes nothing on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GROUP = "concordat-test-container"

INSIDE = """
import subprocess, sys
from pathlib import Path
from concordat_devcluster import cgroups

root, controller = Path(sys.argv[1]), sys.argv[2]
cgroups._NEEDED_V2 = cgroups._USED_V2 = (controller,)  # a host may use the others in version 1
own = (root / "cgroup.procs").read_text().split()
assert own and (root / "cgroup.type").is_file(), "this is no root of a container"
# Until it has given up its memory, an exiting process is in its group, and the kernel moves it to no other.
exiting = subprocess.Popen([sys.executable, "-c", sys.argv[3]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
exiting.stdout.readline()
exiting.kill()
stat = Path(f"/proc/{exiting.pid}/stat")
while not int(stat.read_text().rpartition(")")[2].split()[6]) & 0x4:  # PF_EXITING
    pass
cgroups.create("concordat-0", root)
exiting.wait()
assert (root / "cgroup.procs").read_text() == ""
assert set(own) <= set((root / "init/cgroup.procs").read_text().split())
assert controller in (root / "concordat-0/pods/cgroup.controllers").read_text().split()
cgroups.remove("concordat-0", root)
"""
LARGE = """
import mmap, sys
memory = mmap.mmap(-1, 256 << 20)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for start in range(0, len(memory), mmap.PAGESIZE):
    memory[start] = 1
print(flush=True)
sys.stdin.read()
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
            exec "$0" -c "$1" {inside} "$2" "$3"' "{sys.executable}" "$0" "$controller" "$1"
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, INSIDE, LARGE], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.fail(done.stdout)
    assert done.returncode == 0, done.stderr
