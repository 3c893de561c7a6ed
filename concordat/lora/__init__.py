"""LoRA updates that average exactly: the average is that of the weight changes, not of what they were made from.

One factor trained (aggregation.lora Alternating, FrozenA): `Whitening`. Both trained: `svd_mean` and `svd_trimmed`
(Svd), `factor_mean` (FactorMean), with `product_norms` and `product_gram` to screen them. Sites of lower rank train
the first components of the parent's; `pad` fills in the rest. The base model is never changed.
"""

from __future__ import annotations

from concordat.lora.adapter import Adapter, LoraError, Module, read_adapter
from concordat.lora.clip import Ceiling
from concordat.lora.products import COVARIANCE_LIMIT, CovarianceTooLarge, factor_mean, product_gram, product_norms
from concordat.lora.svd import DISCARDED_LIMIT, DiscardedEnergy, SvdResult, svd_mean, svd_trimmed
from concordat.lora.whitening import Whitening

__all__ = [
    "COVARIANCE_LIMIT",
    "DISCARDED_LIMIT",
    "Adapter",
    "Ceiling",
    "CovarianceTooLarge",
    "DiscardedEnergy",
    "LoraError",
    "Module",
    "SvdResult",
    "Whitening",
    "factor_mean",
    "product_gram",
    "product_norms",
    "read_adapter",
    "svd_mean",
    "svd_trimmed",
]
