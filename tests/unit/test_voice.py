"""What can be kept by rule of how the code speaks: docstrings begin with a verb, and retired names stay away."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("concordat", "operator", "aggregator", "site_agent", "learning", "cli", "devcluster")
NO_VERB = {"A", "An", "How", "Of", "So", "The", "What", "Whether", "Why"}
RETIRED = {"fall": "regression", "figures": "metrics", "gain": "improvement", "held_out": "quarantined",
           "judge": "verify, confirm or decide", "rival": "incumbent", "space": "namespace or workspace"}  # fmt: skip


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_attribute(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def returns(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns) != "None"


def parsed(package: str) -> list[tuple[str, ast.Module]]:
    files = sorted((ROOT / package).rglob("*.py"))
    return [(str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_of_a_function_that_returns_something_begins_with_a_verb(package: str) -> None:
    wrong = [
        f"{file}:{function.lineno} {function.name}: {text.splitlines()[0]}"
        for file, tree in parsed(package)
        for function in functions(tree)
        if returns(function) and not is_attribute(function)
        if (text := ast.get_docstring(function)) and text.split()[0] in NO_VERB
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_given_a_retired_name(package: str) -> None:
    wrong = [
        f"{file}:{node.lineno}: {node.id} (better: {RETIRED[node.id]})"
        for file, tree in parsed(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in RETIRED
    ]
    assert not wrong, "\n".join(wrong)
