"""A real API server and a real registry, one for the session, for the tests that ask for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.processes import answers, free_port, start, stop, wait_for
from concordat_devcluster.tools import ensure_tools
from tests.support.waiting import HANG_SECONDS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Scenarios run in memory, unless they are asked to run on the real API server and registry."""
    parser.addoption("--real", action="store_true", help="run tests/scenarios on a real API server and registry")


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager: `.kubeconfig`, `.kubectl(...)`, `.apply_crds()`."""
    with ControlPlane() as control_plane:
        yield control_plane


@pytest.fixture(scope="module")
def crds(api_server: ControlPlane) -> ControlPlane:
    """The API server with our custom resources."""
    api_server.apply_crds()
    return api_server


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real OCI registry on loopback, one for the session."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    configuration = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "test"},
    }
    (folder / "config.yml").write_text(json.dumps(configuration))
    log = folder / "log"
    process = start([ensure_tools() / "registry", "serve", folder / "config.yml"], log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for("registry", lambda: answers(f"{url}/v2/"), HANG_SECONDS, lambda: process.poll() is None, log)
        yield url
    finally:
        stop(process, 3)


def pytest_configure(config: pytest.Config) -> None:
    """Tests of an attack say so: `@pytest.mark.attack(what, stopped where, reason)`."""
    config.addinivalue_line("markers", "attack(what, where, reason): an attack, where it is stopped, and by which word")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the attack in the test's report, which is what comes back from a worker."""
    marker = item.get_closest_marker("attack")
    if marker is not None:
        item.user_properties.append(("attack", list(marker.args)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the attacks that were tried as a table."""
    stopped: dict[tuple[str, str, str], list[bool]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "attack" and (report.when == "call" or outcome == "failed"):
                    what, where, reason = value
                    stopped.setdefault((what, where, reason), []).append(outcome == "passed")
    if stopped:
        terminalreporter.section("attacks")
        for (what, where, reason), passed in sorted(stopped.items()):
            held = f"{len(passed)} ×" if all(passed) else "NOT STOPPED"
            terminalreporter.write_line(f"{what} · {where} · {reason} · {held}")
