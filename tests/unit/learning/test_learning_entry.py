"""Exit codes, last words and signals of the Jobs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from concordat_learning import entry
from concordat_learning.entry import CanaryFolders, Folders, run, run_in
from concordat_learning.errors import DataError, InputError, NotIsolated, TransientError

FLAGS = ["--base=/b", "--task=/t", "--data=/d", "--out=/o"]


def raising(error: BaseException) -> Callable[[Folders], None]:
    def job(folders: Folders) -> None:
        raise error

    return job


def sigterm(folders: Folders) -> None:
    # As a library might: that must not stop the stop.
    with contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("job", "code", "says"),
    [
        (lambda folders: None, 0, ""),
        (raising(InputError("seed is missing")), 64, "seed is missing"),
        (raising(DataError("images is empty")), 65, "images is empty"),
        (raising(KeyError("x")), 70, "bug: KeyError: 'x'"),
        (raising(NotIsolated("a network")), 71, "a network"),
        (raising(TransientError("disk full")), 75, "disk full"),
        (sigterm, 75, "stopped by SIGTERM before the result was complete; nothing was handed over"),
    ],
)
def test_every_end_has_its_code_and_message(
    job: Callable[[Folders], None], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(job, "", FLAGS) == code
    assert says in capsys.readouterr().err


def test_the_folders_are_those_of_the_command_line() -> None:
    seen: list[Folders] = []
    assert run(seen.append, "", FLAGS) == 0
    assert seen == [Folders(Path("/b"), Path("/t"), Path("/d"), Path("/o"))]
    hub: list[CanaryFolders] = []
    assert run_in(CanaryFolders, hub.append, "", ["--base=/b", "--updates=/u", "--data=/d", "--out=/o"]) == 0
    assert hub == [CanaryFolders(Path("/b"), Path("/u"), Path("/d"), Path("/o"))]


@pytest.mark.parametrize(
    ("flags", "says"),
    [([], "--base, --task, --data, --out"), ([*FLAGS, "--gpu"], "unrecognized arguments: --gpu")],
)
def test_a_wrong_command_line_is_bad_input(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda folders: None, "", flags)
    assert ended.value.code == 64
    assert says in capsys.readouterr().err


def test_the_signal_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(lambda folders: None, "", FLAGS)
    assert signal.getsignal(signal.SIGTERM) is before


def test_kubelet_gets_the_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    assert entry._fail(65, "lost", log) == 65
    assert not log.exists(), "only kubelet makes it"
    log.write_text("x" * 5000)
    assert entry._fail(65, "ä" * 5000, log) == 65
    assert log.read_text() == "ä" * 1000


def test_no_library_looks_for_a_network() -> None:
    entry.prepare_environment()
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
