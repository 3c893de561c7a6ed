"""Draws the picture in architecture.md from the import contracts in pyproject.toml: `make generate`.

The picture cannot say anything else than what `make imports` enforces; `--check` fails where the two differ.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "architecture.md"
BEGIN, END = "<!-- drawn by draw_layers.py -->\n", "<!-- end -->\n"


def contracts() -> dict[str, dict[str, Any]]:
    """Return the import contracts by name."""
    settings = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["name"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def picture(known: dict[str, dict[str, Any]]) -> str:
    """Return the layers as a Mermaid diagram: an arrow means "may import what is there and below"."""
    programs = known["the programs never import each other, and nothing imports the command line"]["modules"]
    command_line = known["nothing imports the command line"]["forbidden_modules"]
    layers = [
        command_line,
        programs,
        *(f"concordat.{layer}".split(" | ") for layer in known["the layers of the library"]["layers"]),
    ]
    boxes = [f'  layer{i}["{" · ".join(_short(module) for module in layer)}"]' for i, layer in enumerate(layers)]
    arrows = [f"  layer{i} --> layer{i + 1}" for i in range(len(layers) - 1)]
    return "\n".join(["```mermaid", "flowchart TD", *boxes, *arrows, "```\n"])


def rules(known: dict[str, dict[str, Any]]) -> str:
    """Return the contracts as a list."""
    return "".join(f"- {name}\n" for name in known)


def _short(module: str) -> str:
    return module.removeprefix("concordat.")


def main() -> int:
    """Write the page, or with --check compare it: 0 equal, 1 different."""
    known, page = contracts(), PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"\n{picture(known)}\nThe contracts, as `make imports` checks them:\n\n{rules(known)}\n"
    drawn = before + BEGIN + text + END + after
    if "--check" in sys.argv[1:]:
        if drawn != page:
            print(f"{PAGE} is not what pyproject.toml says: run `make generate`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
