"""The search: spaces, WL-guided embedding, predictor, strategies, evaluators and the loop that joins them."""

import sys

from nas.graphs import wl

sys.modules[f"{__name__}.wl"] = wl  # the kernel's public name is nas.wl.wl_kernel

__all__ = ["wl"]
