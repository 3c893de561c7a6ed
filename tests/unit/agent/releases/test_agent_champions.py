"""The record of champions: monotone, durable, and unmoved by a repeated decision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.site import Champion
from concordat_agent.releases.champions import ChampionError, Champions


def _champion(sequence: int, content: str = "a") -> Champion:
    return Champion.model_validate(
        {
            "release": f"digits-{sequence}",
            "sequence": sequence,
            "artifact": {"repository": "digits/adapters", "digest": "sha256:" + content * 64},
            "qualityPpm": 900_000,
        }
    )


def test_a_new_champion_keeps_the_one_before_it(tmp_path: Path) -> None:
    champions = Champions(tmp_path / "adopted.json")
    assert champions.current("digits") is None
    assert champions.adopt("digits", _champion(1))
    assert champions.adopt("digits", _champion(3, "b"))
    again = Champions(tmp_path / "adopted.json")
    assert again.current("digits") == _champion(3, "b")
    assert again.all() == [_champion(3, "b"), _champion(1)]
    assert again.in_use() == {"digits": _champion(3, "b")}
    assert again.current("letters") is None


def test_a_replayed_release_is_not_adopted(tmp_path: Path) -> None:
    champions = Champions(tmp_path / "adopted.json")
    champions.adopt("digits", _champion(3))
    assert not champions.adopt("digits", _champion(2))
    assert not champions.adopt("digits", _champion(3, "b"))
    assert champions.current("digits") == _champion(3)


def test_a_repeated_decision_meets_the_rival_it_met(tmp_path: Path) -> None:
    champions = Champions(tmp_path / "adopted.json")
    champions.adopt("digits", _champion(1))
    second = _champion(2, "b")
    before = champions.incumbent("digits", "digits-2", second.artifact)
    champions.adopt("digits", _champion(2, "b"))
    content = (tmp_path / "adopted.json").read_bytes()
    assert champions.incumbent("digits", "digits-2", second.artifact) == before == _champion(1)
    assert champions.adopt("digits", _champion(2, "b"))
    assert (tmp_path / "adopted.json").read_bytes() == content
    assert champions.incumbent("digits", "digits-3", _champion(3).artifact) == second


@pytest.mark.attack("F13: another adapter under the champion's name", "agent", "compared with the champion")
def test_another_adapter_under_the_champions_name_meets_the_champion(tmp_path: Path) -> None:
    """Security finding F13: it was judged against the release before, and 49 % adopted over 95 %."""
    champions = Champions(tmp_path / "adopted.json")
    champions.adopt("digits", _champion(1))
    champions.adopt("digits", _champion(2, "b"))
    assert champions.incumbent("digits", "digits-2", _champion(2, "c").artifact) == _champion(2, "b")


def test_a_damaged_record_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    path.write_text('{"federations": {"digits": {}}}')
    with pytest.raises(ChampionError, match=r"adopted\.json"):
        Champions(path)


@given(st.lists(st.integers(0, 20), max_size=30))
def test_the_sequence_in_use_never_falls(sequences: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        champions = Champions(Path(folder) / "adopted.json")
        highest = -1
        for sequence in sequences:
            champions.adopt("digits", _champion(sequence))
            highest = max(highest, sequence)
            current = champions.current("digits")
            assert current is not None
            assert current.sequence == highest
