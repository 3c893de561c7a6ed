"""LoRA updates that average exactly: the average is that of the weight changes, not of what they were made from.

One factor trained (aggregation.lora Alternating, FrozenA): `Whitening`; `orthonormal` writes the result so that the
factor that comes next meets an orthonormal one. Both trained (Svd): `svd_mean` and
`svd_trimmed`, with `product_norms` and `product_gram` to screen them. Sites of lower rank train the first components of
the parent's; `pad` fills in the rest. The base model is never changed.
"""

from __future__ import annotations

from concordat.lora.adapter import Adapter, LoraError, Module, read_adapter
from concordat.lora.clip import Ceiling
from concordat.lora.gauge import orthonormal
from concordat.lora.products import product_gram, product_norms
from concordat.lora.svd import DISCARDED_LIMIT, DiscardedEnergy, SvdResult, svd_mean, svd_trimmed
from concordat.lora.whitening import Whitening

__all__ = [
    "DISCARDED_LIMIT",
    "Adapter",
    "Ceiling",
    "DiscardedEnergy",
    "LoraError",
    "Module",
    "SvdResult",
    "Whitening",
    "orthonormal",
    "product_gram",
    "product_norms",
    "read_adapter",
    "svd_mean",
    "svd_trimmed",
]
