"""Accel-NASBench's networks: seven blocks of inverted residuals; each has expansion, kernel, depth and excitation.

Source: Ahmad, Xue et al., "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS", DAC 2024: the
MnasNet-like space in EfficientNet-B0's widths and strides, at 224 pixels with 1000 classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.spaces.base import CandidateBatch
from nas.spaces.choices import ChoiceSpace

_VALUES: dict[str, tuple[int, ...]] = {"e": (1, 4, 6), "k": (3, 5), "l": (1, 2, 3), "se": (0, 1)}
_MORE_LAYERS = {"block5_l": (1, 2, 3, 4)}
CHOICES: dict[str, tuple[int, ...]] = {
    name: _MORE_LAYERS.get(name, values)
    for block in range(7)
    for name, values in ((f"block{block}_{part}", values) for part, values in _VALUES.items())
}
_WIDTHS, _STRIDES = (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 2, 1, 2, 1)
_STEM, _HEAD, _CLASSES, _SIDE = 32, 1280, 1000, 112


class AccelNASBench(ChoiceSpace):
    """All 3 x 2 x 3 x 2 choices (four depths in block 5) for seven blocks (module docstring)."""

    name = "accel_nasbench"

    def __init__(self) -> None:
        super().__init__(CHOICES)

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Multiply-adds at 224 pixels; of convolutions and linear layers, while the benchmark counts norms, too."""
        return self._totals(batch)[0]

    def params(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Parameters, the benchmark's own figures."""
        return self._totals(batch)[1]

    def _totals(self, batch: CandidateBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chosen = {
            name: np.array(values)[column]
            for (name, values), column in zip(CHOICES.items(), batch.macro.T.astype(np.intp), strict=True)
        }
        n, side, before = len(batch), _SIDE, _STEM
        macs = np.full(n, 27.0 * _STEM * side**2)
        params = np.full(n, 27.0 * _STEM + 2 * _STEM)
        for block, (width, stride) in enumerate(zip(_WIDTHS, _STRIDES, strict=True)):
            ratio, kernel, layers, excites = (chosen[f"block{block}_{part}"] for part in _VALUES)
            for layer in range(int(layers.max(initial=0))):
                here, inner = layer < layers, before * ratio
                expands = here & (ratio > 1)
                macs += expands * (before * inner * side**2)
                params += expands * (before * inner + 2 * inner)
                if layer == 0:
                    side //= stride
                squeezed = before // 4
                macs += here * ((inner * kernel**2 + inner * width) * side**2 + excites * 2 * inner * squeezed)
                params += here * (inner * kernel**2 + 2 * inner + inner * width + 2 * width)
                params += here * excites * (2 * inner * squeezed + inner + squeezed)
                before = width
        macs += before * _HEAD * side**2 + _HEAD * _CLASSES
        params += before * _HEAD + 2 * _HEAD + _HEAD * _CLASSES + _CLASSES
        return macs, params
