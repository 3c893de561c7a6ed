"""The updates that `concordat aggregate` and `screen` read: adapter folders of peft, or plain safetensors files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from concordat import aggregation, lora
from concordat.aggregation import AggregationError, Gram
from concordat.api.aggregation_rules import PreAggregation, Rule, shortage
from concordat.api.round import Factor
from concordat.tensors import FLOATS, Named, TensorError, Tensors, factor_names, map_tensors, write_tensors
from concordat_cli.errors import Exit, UserError


@dataclass(frozen=True)
class Combined:
    """The aggregate, and how it was made."""

    tensors: Tensors
    weights: NDArray[np.float64] | None
    """(n,): each update's share, where the rule gives shares."""
    how: str = ""
    """A sentence on what of LoRA was averaged."""
    lora: dict[str, Any] | None = None
    """The same, for the report."""


class Updates(Protocol):
    """Updates that are compared and combined with each other."""

    def digest(self, position: int) -> str:
        """Return the SHA-256 of the file with an update's tensors."""

    def gram(self) -> Gram:
        """Return norms, inner products and distances of the updates, with the extra one last."""

    def combine(self, kept: Sequence[int], rule: Rule, faults: int, pre: PreAggregation, gram: Gram) -> Combined:
        """Return one of those at these positions; `gram` is theirs alone, and the extra one FLTrust's reference."""

    def write(self, output: Path, combined: Combined) -> None:
        """Write the aggregate in the form of the updates."""


def open_updates(
    paths: Sequence[Path], extra: Path | None = None, parent: Path | None = None, rank: int | None = None
) -> Updates:
    """Return the updates, and an extra one to compare them with. Raises UserError naming the file."""
    given = [*paths, *([] if extra is None else [extra])]
    folders = [path for path in given if path.is_dir()]
    if not folders:
        if parent is not None or rank is not None:
            raise UserError(
                f"--parent and --rank are for adapter folders, and {given[0]} is a file: a plain file holds what "
                "training changed, from whatever parent",
                Exit.USAGE,
            )
        return PlainFiles(given, extra is not None)
    if len(folders) < len(given):
        file = next(path for path in given if not path.is_dir())
        raise UserError(
            f"{folders[0]} is a folder and {file} is none: give adapter folders, or plain files", Exit.USAGE
        )
    with engine_errors_as_user_errors(Exit.USAGE):
        return AdapterFolders([lora.read_folder(path) for path in given], extra is not None, parent, rank)


@contextmanager
def engine_errors_as_user_errors(code: Exit = Exit.FAILED) -> Iterator[None]:
    """Turn what the engine raises into one line for the user."""
    try:
        yield
    except lora.DiscardedEnergy as error:
        raise UserError(
            f"the result does not fit the output's rank: it would lose {error.share:.1%} of the energy, most of it in "
            f"{error.module}, and at most {lora.DISCARDED_LIMIT:.0%} is accepted. Give --rank {error.rank}; adapters "
            "that were trained from one --parent, or share lora_A, need less"
        ) from error
    except (AggregationError, lora.LoraError) as error:
        raise UserError(str(error), code) from error


class PlainFiles:
    """Tensors of any names, the same in all, compared and combined number by number."""

    def __init__(self, paths: Sequence[Path], has_extra: bool) -> None:
        """Raises UserError naming the file."""
        self._paths = paths
        self._tensors = [_read(path) for path in paths]
        self._has_extra = has_extra
        with engine_errors_as_user_errors(Exit.USAGE):
            self._rows = aggregation.Rows(self._tensors)

    def digest(self, position: int) -> str:
        """See Updates."""
        return _sha256(self._paths[position])

    def gram(self) -> Gram:
        """See Updates."""
        return aggregation.gram(self._rows)

    def combine(self, kept: Sequence[int], rule: Rule, faults: int, pre: PreAggregation, gram: Gram) -> Combined:
        """See Updates."""
        reference = self._tensors[-1] if self._has_extra else None
        made = aggregation.aggregate(self._rows.select(kept), rule, faults, pre=pre, reference=reference, gram=gram)
        return Combined(made.tensors, made.weights)

    def write(self, output: Path, combined: Combined) -> None:
        """See Updates."""
        output.write_bytes(write_tensors(combined.tensors))


class AdapterFolders:
    """Adapters of one base model, compared and combined as the weight changes s·B·A that they make."""

    def __init__(
        self, folders: Sequence[lora.AdapterFolder], has_extra: bool, parent: Path | None, rank: int | None
    ) -> None:
        """Raises LoraError if they do not fit each other or the parent."""
        origin = None if parent is None else lora.read_folder(parent)
        lora.check_alike([*folders, *([] if origin is None else [origin])])
        own = folders[:-1] if has_extra else folders
        self._config = lora.output_config(own, origin, rank)
        self._folders = folders
        self._has_extra = has_extra
        self._aligned = lora.align(
            [folder.adapter for folder in folders], self._config, None if origin is None else origin.adapter
        )

    def digest(self, position: int) -> str:
        """See Updates."""
        return _sha256(self._folders[position].tensors_path)

    def gram(self) -> Gram:
        """See Updates."""
        return Gram(*lora.product_gram(self._aligned.updates, self._aligned.parent))

    def combine(self, kept: Sequence[int], rule: Rule, faults: int, pre: PreAggregation, gram: Gram) -> Combined:
        """See Updates."""
        if self._aligned.factor is not Factor.BOTH:
            return self._one_factor(kept, rule, faults, pre, gram)
        lack = shortage(rule, faults, len(kept))
        if lack is not None:
            raise AggregationError(lack)
        parent, ranks = self._aligned.parent, self._aligned.ranks
        updates = [self._aligned.updates[i] for i in kept]
        if rule is Rule.TRIMMED_MEAN:
            mixed = None if pre is PreAggregation.NONE else aggregation.mixing(gram, pre, faults)
            weights, result = None, lora.svd_trimmed(updates, mixed, faults, parent, ranks)
        else:
            weights = aggregation.shares(gram, rule, faults, pre=pre)
            result = lora.svd_mean(updates, weights.tolist(), parent, ranks)
        return self._combined(result.tensors, weights, result.discarded)

    def write(self, output: Path, combined: Combined) -> None:
        """See Updates."""
        lora.write_folder(output, combined.tensors, self._config)

    def _one_factor(self, kept: Sequence[int], rule: Rule, faults: int, pre: PreAggregation, gram: Gram) -> Combined:
        parent, factor = self._aligned.parent, self._aligned.factor
        whitening = lora.Whitening.of(parent, factor)
        names = factor_names(parent.tensors(), factor)
        rows = [whitening.whiten({name: update[name] for name in names}) for update in self._aligned.updates]
        reference = rows[-1] if self._has_extra else None
        taken = [rows[i] for i in kept]
        made = aggregation.aggregate(taken, rule, faults, pre=pre, reference=reference, gram=gram)
        changed = aggregation.apply_delta(parent.tensors(), whitening.unwhiten(made.tensors))
        return self._combined(changed, made.weights, 0.0)

    def _combined(self, tensors: Tensors, weights: NDArray[np.float64] | None, lost: float) -> Combined:
        low, high = min(self._aligned.ranks.values()), max(self._aligned.ranks.values())
        rank = str(high) if low == high else f"{low} to {high}"
        told = {"factor": self._aligned.factor.value, "rank": rank, "discardedEnergy": lost}
        if self._aligned.factor is Factor.BOTH:
            how = f"of the products B·A, at rank {rank}, which loses {lost:.1%} of the energy"
        else:
            how = f"of lora_{self._aligned.factor.value} alone, at rank {rank}, for the other factor is equal in all"
        return Combined(tensors, weights, how, told)


def _read(path: Path) -> Named:
    try:
        tensors = map_tensors(path, FLOATS)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from error
    except TensorError as error:
        raise UserError(f"{path}: {error}", Exit.USAGE) from error
    if factor_names(tensors, Factor.A) and factor_names(tensors, Factor.B):
        raise UserError(
            f"{path} holds lora_A and lora_B, whose averages do not multiply to the average of the weight changes: "
            "give the folder that peft wrote, with adapter_config.json beside adapter_model.safetensors",
            Exit.USAGE,
        )
    return tensors


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
