"""LoRA updates that average exactly: the average is that of the weight changes, not of what they were made from.

One factor trained (aggregation.lora Alternating, FrozenA): `Whitening`; `orthonormal` writes the result so that the
factor that comes next meets an orthonormal one. Both trained (Svd): `svd_mean` and `svd_trimmed`, with `product_norms`
and `product_gram` to screen them. Sites of lower rank train the first components of the parent's; `pad` fills in the
rest. The base model is never changed.

Whole adapters, as peft writes them, become such updates by `read_folder`, `check_alike` and `align`.
"""

from __future__ import annotations

from concordat.lora.adapter import Adapter, LoraError, Module, read_adapter
from concordat.lora.align import Aligned, align
from concordat.lora.clip import Ceiling
from concordat.lora.folder import AdapterFolder, check_alike, output_config, read_folder, write_folder
from concordat.lora.gauge import orthonormal
from concordat.lora.products import product_gram, product_norms
from concordat.lora.svd import DISCARDED_LIMIT, DiscardedEnergy, SvdResult, svd_mean, svd_trimmed
from concordat.lora.whitening import Whitening

__all__ = [
    "DISCARDED_LIMIT",
    "Adapter",
    "AdapterFolder",
    "Aligned",
    "Ceiling",
    "DiscardedEnergy",
    "LoraError",
    "Module",
    "SvdResult",
    "Whitening",
    "align",
    "check_alike",
    "orthonormal",
    "output_config",
    "product_gram",
    "product_norms",
    "read_adapter",
    "read_folder",
    "svd_mean",
    "svd_trimmed",
    "write_folder",
]
