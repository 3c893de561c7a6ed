"""Calls of `concordat aggregate` and `concordat screen`, as the console script makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from concordat_cli.main import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the entry point; the exit code and what was printed."""

    def call(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["concordat", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else bool(ended.code)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call
