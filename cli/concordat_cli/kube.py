"""kubectl and helm as a person would call them, and quick reads through the Python client."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from concordat.api.resource import Resource
from concordat.api.types import GROUP, VERSION
from concordat_cli.errors import Exit, UserError

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

PATIENCE_SECONDS = 1800.0
"""Longest wait for one step. On two cores of our own none takes more than a minute and a half: this is for a machine a
tenth as fast, with something to spare. What cannot come true any more is not waited for."""
_UNPULLED_SECONDS = 180.0
"""For how long an image may fail to be pulled before a wait gives up: a registry may be starting."""
_UNPULLED = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName"})


@dataclass
class Kube:
    """One cluster: where its kubeconfig is, and which kubectl and helm to use."""

    kubeconfig: Path | None = None
    context: str | None = None
    tools: Path | None = None
    """Folder with kubectl and helm; None: those on PATH."""
    _api: client.ApiClient | None = field(default=None, repr=False)

    def _program(self, name: str) -> str:
        return str(self.tools / name) if self.tools else name

    def _env(self) -> dict[str, str]:
        env = dict(os.environ)
        if self.kubeconfig is not None:
            env["KUBECONFIG"] = str(self.kubeconfig)
        return env

    def run(self, program: str, *args: str, stdin: str | None = None) -> str:
        """Run kubectl or helm; its own message becomes the error."""
        flag = {"kubectl": "--context", "helm": "--kube-context"}[program]
        context = [flag, self.context] if self.context else []
        try:
            done = subprocess.run(
                [self._program(program), *context, *args],
                input=stdin,
                env=self._env(),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise UserError(
                f"{program} is not on PATH; install it, or use the embedded cluster, which brings its own",
                Exit.PREREQUISITE,
            ) from None
        if done.returncode:
            raise UserError(f"{program} {' '.join(args[:4])} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def popen(self, program: str, *args: str) -> subprocess.Popen[str]:
        """Start kubectl in the background."""
        context = ["--context", self.context] if self.context else []
        return subprocess.Popen(
            [self._program(program), *context, *args],
            env=self._env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Run `kubectl apply` with strict field validation."""
        text = "---\n".join(yaml.safe_dump(dict(o), sort_keys=False) for o in objects)
        self.run("kubectl", "apply", "--validate=strict", "-f", "-", stdin=text)

    def helm_install(self, release: str, chart: Path, namespace: str, values: Mapping[str, Any]) -> None:
        """Run `helm upgrade --install`, without waiting: the caller waits for what it needs."""
        self.run(
            "helm", "upgrade", "--install", release, str(chart), "--namespace", namespace, "--create-namespace",
            "--values", "-", stdin=yaml.safe_dump(dict(values)),
        )  # fmt: skip

    @property
    def api(self) -> client.ApiClient:
        """Return the Python client, made on first use."""
        if self._api is None:
            try:
                self._api = config.new_client_from_config(
                    config_file=str(self.kubeconfig) if self.kubeconfig else None, context=self.context
                )
            except config.ConfigException as error:
                raise UserError(
                    f"no cluster is configured ({error}); set KUBECONFIG, or run 'concordat cluster up'",
                    Exit.UNREACHABLE,
                ) from None
        return self._api

    def _read(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ApiException as error:
            if error.status == 404:
                return None
            reason = json.loads(error.body).get("message", error.reason) if error.body else error.reason
            raise UserError(f"the API server refused: {reason}") from None
        except Exception as error:
            if type(error).__module__.startswith("urllib3"):
                raise UserError(f"the API server does not answer: {error}", Exit.UNREACHABLE) from None
            raise

    def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return one custom resource, or None."""
        api = client.CustomObjectsApi(self.api)
        got = self._read(lambda: api.get_namespaced_custom_object(GROUP, VERSION, namespace, kind.KIND.plural, name))
        return None if got is None else kind.model_validate(got)

    def list(self, kind: type[R], labels: str = "") -> list[R]:
        """Return the custom resources of all namespaces."""
        api = client.CustomObjectsApi(self.api)
        got = self._read(
            lambda: api.list_cluster_custom_object(GROUP, VERSION, kind.KIND.plural, label_selector=labels)
        )
        return [kind.model_validate(o) for o in (got or {}).get("items", [])]

    def configmap(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return the data of a ConfigMap, or None."""
        got = self._read(lambda: client.CoreV1Api(self.api).read_namespaced_config_map(name, namespace))
        return None if got is None else dict(got.data or {})

    def unpulled(self) -> str | None:
        """Return the first pod, of all namespaces, whose image cannot be pulled, and why; None if there is none."""
        for pod in self._read(lambda: client.CoreV1Api(self.api).list_pod_for_all_namespaces()).items:
            status = pod.status
            for container in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
                waiting = container.state.waiting if container.state else None
                if waiting and waiting.reason in _UNPULLED:
                    where = f"pod {pod.metadata.name} in {pod.metadata.namespace}"
                    return f"{where}: {waiting.reason}: {waiting.message or container.image}"
        return None

    def wait(self, what: str, check: Callable[[], T | None]) -> T:
        """Poll once a second until `check` returns something true, and return it.

        Raises UserError, which says what was waited for, after PATIENCE_SECONDS or when an image cannot be pulled.
        """
        started = pulled = time.monotonic()
        while True:
            if found := check():
                return found
            now = time.monotonic()
            stuck = self.unpulled()
            pulled = pulled if stuck else now
            if now > started + PATIENCE_SECONDS or now > pulled + _UNPULLED_SECONDS:
                why = f" ({stuck})" if stuck else ""
                look = self.hint("kubectl get pods -A")
                raise UserError(f"waited {now - started:.0f} s for {what}{why}; look with: {look}")
            time.sleep(1)

    def hint(self, command: str) -> str:
        """Return a command line that a person can paste."""
        program, _, rest = command.partition(" ")
        context = f" --context {self.context}" if self.context else ""
        prefix = f"KUBECONFIG={self.kubeconfig} " if self.kubeconfig else ""
        return f"{prefix}{self._program(program)}{context} {rest}"


def documents(path: Path) -> Sequence[dict[str, Any]]:
    """Return the objects of a manifest file."""
    return [d for d in yaml.safe_load_all(path.read_text()) if d]
