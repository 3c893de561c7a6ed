"""Calls of `concordat`, as the console script makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from concordat_cli.main import main


@dataclass(frozen=True)
class Done:
    """How a call of `concordat` ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the entry point, as the console script does. What leaves it other than by `sys.exit` fails the test."""

    def call(*args: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["concordat", *args])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else bool(ended.code)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call
