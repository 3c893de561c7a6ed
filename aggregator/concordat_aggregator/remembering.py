"""A memory of what a container of the pod made, for the next: with a canary the program runs three times."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation import Gram
from concordat.tensors import Named, Tensors
from concordat_aggregator.method import Combined, Method

Arrays = dict[str, NDArray[Any]]


class RememberingMethod:
    """A method that leaves what it compared and combined in a folder, and finds it there. See Method."""

    def __init__(self, method: Method, folder: Path) -> None:
        """The folder belongs to one request, which decides everything but whether the registry still has it all."""
        self._method = method
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def measure(self, delta: Named) -> tuple[Named, dict[str, float]]:
        """See Method."""
        return self._method.measure(delta)

    def admit(self, site: str, measured: Named) -> None:
        """See Method."""
        self._method.admit(site, measured)

    def compare(self, sites: Sequence[str], ancestors: Sequence[Tensors]) -> tuple[Gram, NDArray[np.float64] | None]:
        """See Method."""
        if not sites:
            return self._method.compare(sites, ancestors)

        def made() -> Arrays:
            products, cosines = self._method.compare(sites, ancestors)
            found = {"inner": products.inner, "distances2": products.distances2, "basis": products.basis}
            return found if cosines is None else {**found, "cosines": cosines}

        found = self._once("compared", list(sites), made)
        return Gram(found["inner"], found["distances2"], found["basis"]), found.get("cosines")

    def combine(self, sites: Sequence[str], faults: int, products: Gram, *, reference: str | None) -> Combined:
        """See Method."""

        def made() -> Arrays:
            combined = self._method.combine(sites, faults, products, reference=reference)
            found = {f"/{name}": tensor for name, tensor in combined.candidate.items()}
            found |= {"norm": np.array(combined.norm), "error": np.array(combined.error)}
            return found if combined.weights is None else {**found, "weights": combined.weights}

        found = self._once("combined", [*sites, faults], made)
        candidate = {name[1:]: array for name, array in found.items() if name.startswith("/")}
        return Combined(candidate, float(found["norm"]), found.get("weights"), float(found["error"]))

    def _once(self, name: str, about: list[str | int], make: Callable[[], Arrays]) -> Arrays:
        """Return what `make` returned for the same before, or what it returns now."""
        path, key = self._folder / f"{name}.npz", json.dumps(about)
        if path.exists():
            with np.load(path) as kept:
                if str(kept["about"]) == key:
                    return {entry: kept[entry] for entry in kept.files if entry != "about"}
        made = make()
        part = self._folder / f".{name}.npz"
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(key), **made)
        os.replace(part, path)
        return made
