"""This machine's settings for installing Python packages, for use inside a build: its index, proxy and certificates.

They are mounted while a build runs and are no part of an image.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

MOUNT = "/run/installer"
UV_CACHE = "/run/uv-cache"
_VARIABLES = {
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_PROXY",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
    *(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())),
}
_UV_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
}
_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def settings(environment: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for pip and uv; `pip`: what pip's files set.

    uv gets pip's index unless it has one of its own.
    """
    chosen = {f"PIP_{name.upper().replace('-', '_')}": " ".join(value.split()) for name, value in pip.items()}
    chosen = {name: value for name, value in chosen.items() if name in _VARIABLES}
    chosen |= {name: value for name, value in environment.items() if name in _VARIABLES and value}
    # A named index of uv has its credentials in variables of its own.
    chosen |= {name: value for name, value in environment.items() if name.startswith("UV_INDEX_")}
    if not any(name.startswith(("UV_DEFAULT_INDEX", "UV_INDEX")) for name in chosen):
        chosen |= {uv: chosen[name] for name, uv in _UV_FROM_PIP.items() if name in chosen}
    return chosen


def pip_settings(files: list[Path]) -> dict[str, str]:
    """Return the settings in pip's files, of which the later ones win."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read(files)
    return {k: v for section in ("global", "install") if parser.has_section(section) for k, v in parser.items(section)}


def write(folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Fill a folder that a build mounts at MOUNT: `env`, a shell file, and the files that it names."""
    given = os.environ if environment is None else environment
    home = Path(given.get("HOME", "/"))
    config = Path(given.get("XDG_CONFIG_HOME") or home / ".config")
    pip_files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf"]
    pip = pip_settings([*pip_files, Path(given.get("PIP_CONFIG_FILE", "/nowhere"))])
    variables = settings(given, pip) | {"UV_CACHE_DIR": UV_CACHE}
    certificates = [*(given.get(name) for name in _CERTIFICATES), pip.get("cert"), *_SYSTEM_CERTIFICATES]
    for found, names in (
        (_first_file(*certificates), ("SSL_CERT_FILE", "PIP_CERT")),
        (_first_file(given.get("UV_CONFIG_FILE"), config / "uv/uv.toml", "/etc/uv/uv.toml"), ("UV_CONFIG_FILE",)),
        (_first_file(given.get("NETRC"), home / ".netrc"), ("NETRC",)),
    ):
        if found:
            shutil.copyfile(found, folder / names[0])
            variables |= dict.fromkeys(names, f"{MOUNT}/{names[0]}")
    (folder / "env").write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def _first_file(*candidates: str | Path | None) -> Path | None:
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def uv_cache() -> Path:
    """Where uv keeps its downloads: what `make setup` has fetched is not fetched again for the images."""
    base = os.environ.get("XDG_CACHE_HOME")
    default = (Path(base) if base else Path.home() / ".cache") / "uv"
    return Path(os.environ.get("UV_CACHE_DIR") or default)
