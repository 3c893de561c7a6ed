"""Manifests are deterministic and read strictly; a staged folder is there complete or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from concordat.artifacts import ArtifactCorrupt, RegistryStore
from concordat.artifacts.manifest import MANIFEST_TYPE, TITLE, File, build, parse
from concordat.artifacts.staging import staged
from concordat.protocol.canonical import sha256_digest

A, B = File("a", sha256_digest(b"a"), 1), File("b", sha256_digest(b"b"), 1)


def test_the_same_files_make_the_same_manifest() -> None:
    assert build("type/x", [A, B]) == build("type/x", [B, A])
    assert parse(build("type/x", [A, B]), "x") == {"a": A, "b": B}


def test_a_manifest_has_at_most_4_mib() -> None:
    files = [File(f"{i:0128}", A.digest, 1) for i in range(20_000)]
    with pytest.raises(ValueError, match="at most 4194304"):
        build("type/x", files)


def _document(**layer: Any) -> dict[str, Any]:
    full = {"digest": A.digest, "size": 1, "annotations": {TITLE: "a"}, **layer}
    return {"mediaType": MANIFEST_TYPE, "layers": [full]}


@pytest.mark.parametrize(
    "document",
    [
        7,
        [],
        {},
        {"layers": {}},
        {"layers": [7]},
        {"mediaType": "application/vnd.oci.image.index.v1+json", "layers": []},
        _document(annotations=None),
        _document(annotations=[]),
        _document(annotations={TITLE: 7}),
        _document(annotations={TITLE: "../a"}),
        _document(annotations={TITLE: ".a"}),
        _document(annotations={TITLE: "a\n"}),
        _document(digest=7),
        _document(digest=A.digest + "\n"),
        _document(digest="sha512:" + "0" * 128),
        _document(size="1"),
        _document(size=True),
        _document(size=1.5),
        _document(size=float("inf")),
        _document(size=-1),
        _document(size=10**30),
    ],
)
def test_a_strange_manifest_is_corrupt(document: Any) -> None:
    with pytest.raises(ArtifactCorrupt):
        parse(json.dumps(document).encode(), "x")


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000])
def test_bytes_that_are_no_json_are_corrupt(data: bytes) -> None:
    with pytest.raises(ArtifactCorrupt, match="not JSON"):
        parse(data, "x")


@pytest.mark.parametrize("url", ["", "registry:5000", "ftp://registry", "http://", "http://user:pass@registry:5000"])
def test_a_registry_url_names_scheme_and_host_only(url: str) -> None:
    with pytest.raises(ValueError, match=r"registry URL|credentials"):
        RegistryStore(url)


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "x" / "target"
    with pytest.raises(FileNotFoundError), staged(target) as part:
        (part / "a").write_bytes((tmp_path / "absent").read_bytes())
    assert list(target.parent.iterdir()) == []
    with staged(target) as part:
        (part / "a").write_text("whole")
        assert not target.exists()
    assert [p.name for p in target.parent.iterdir()] == ["target"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_the_second_of_two_keeps_the_first(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with staged(target) as slow:
        (slow / "a").write_text("slow")
        with staged(target) as fast:
            (fast / "a").write_text("fast")
        assert slow.is_dir()
    assert (target / "a").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from concordat.artifacts.staging import staged\n"
        "with staged(pathlib.Path(sys.argv[1])) as part:\n"
        "    (part / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "target"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, target], check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".target.part-file").write_text("not ours")
    with staged(target):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".target.part-file", "target"]
