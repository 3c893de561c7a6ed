"""A site that lies: it trains honestly, then sends its update scaled by −20 and unclipped, honestly signed.

Everything else is the real agent, so its statements are valid: only the hub's screening can refuse the update.
"""

from __future__ import annotations

import math

import numpy as np

from concordat.lora import Ceiling
from concordat.tensors import Tensors
from concordat_agent.main import main
from concordat_agent.signer import Prepared

SCALE = np.float32(-20)


def poisoned(delta: Tensors, ceiling: Ceiling) -> Prepared:
    """The update, turned around and blown up; the norm stated is the true one."""
    scaled = {name: values * SCALE for name, values in delta.items()}
    return Prepared(delta=scaled, norm=math.hypot(*ceiling.norms(scaled).values()), clipped=False)


if __name__ == "__main__":
    main(prepare=poisoned)
