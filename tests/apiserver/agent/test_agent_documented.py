"""The commands of docs/reference/statements.md verify a statement from a real registry, without any of our code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from concordat.artifacts import RegistryStore
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.contract import contract_statement
from concordat_devcluster.paths import REPOSITORY


async def test_a_statement_is_verified_with_public_tools_only(registry_url: str, tmp_path: Path) -> None:
    key, digest = SigningKey.generate(), "sha256:" + "a" * 64
    statement = sign(contract_statement({"federation": "größe"}, digest), key)
    async with RegistryStore(registry_url) as registry:
        ref = await registry.push("digits/statements", types.STATEMENT, {types.STATEMENT_FILE: statement})
    (tmp_path / "key.pem").write_text(key.public.to_pem())
    text = (REPOSITORY / "docs/reference/statements.md").read_text(encoding="utf-8")
    pull, verify, _cosign = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    environment = {"REGISTRY": registry_url, "REF": f"{ref.repository}@{ref.digest}"}

    def run(commands: str) -> str:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", **environment},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    run(pull)
    assert (tmp_path / "statement.sigstore.json").read_bytes() == statement
    said = run(verify)
    assert said.startswith("Verified OK\n")
    assert unverified(statement).id.removeprefix("sha256:") in said
    (tmp_path / "key.pem").write_text(SigningKey.generate().public.to_pem())
    with pytest.raises(subprocess.CalledProcessError):
        run(verify)
