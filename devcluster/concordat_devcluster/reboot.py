"""What containerd's records need after the node went down with containers half started."""

from __future__ import annotations

import json
from pathlib import Path

_STATUSES = "io.containerd.grpc.v1.cri/containers/*/status"


def end_unstarted(containerd: Path) -> int:
    """Have containers that were created, and never started, count as lost. Returns how many there were.

    `containerd` is its root folder; it must not run. Where a pod must not restart, kubelet 1.36 neither starts such a
    container after its sandbox is gone, nor gives the pod up: it would stay Pending for ever. One that was running
    when the node went down is reported with exit code 255, which a Job may try again.
    """
    found = 0
    for path in containerd.glob(_STATUSES):
        try:
            status = json.loads(path.read_bytes())
        except ValueError:
            continue  # Cut off while it was written; containerd reports such a container as unknown.
        if status.get("CreatedAt") and not status.get("StartedAt") and not status.get("FinishedAt"):
            temporary = path.with_name("status.tmp")
            temporary.write_text(json.dumps({**status, "StartedAt": status["CreatedAt"]}))
            temporary.replace(path)
            found += 1
    return found
