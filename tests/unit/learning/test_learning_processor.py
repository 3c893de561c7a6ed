"""Another instruction set than the one in use, where the processor has one."""

from __future__ import annotations

import pytest

from concordat_cli.demo.model import cache_folder
from concordat_learning.processor import AVX2, BASELINE, VARIABLES, another

NEW, OLD = "flags : fpu sse4_1 avx avx2 avx512f", "flags : fpu sse4_1 avx"


@pytest.mark.parametrize(
    ("in_use", "processor", "expected"),
    [("AVX512", NEW, AVX2), ("AVX2", NEW, BASELINE), ("DEFAULT", NEW, AVX2), ("DEFAULT", OLD, BASELINE)],
)
def test_another_instruction_set_is_one_that_the_processor_has(in_use: str, processor: str, expected: object) -> None:
    assert another(in_use, processor) == expected


def test_what_the_demo_keeps_was_made_with_the_instruction_set_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    own = cache_folder()
    for name, value in BASELINE.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() != own
