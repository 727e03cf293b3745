"""An ensemble of small networks on path encodings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gemnet.cell_graph import FIRST_OP_CODE, GraphBatch

MOST_BITS = 1024  # of the path encoding; longer paths are cut off


CHUNK = 1024  # graphs encoded at once


class Ensemble(nn.Module):
    """Several small fully connected networks, computed together."""

    WIDTHS = (20, 20, 20, 20, 20)

    def __init__(self, members: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = (inputs, *self.WIDTHS, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            bound = (6 / fan_in) ** 0.5
            weight = (torch.rand(members, fan_in, fan_out, generator=generator) * 2 - 1) * bound
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, fan_out)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, inputs) -> (members, n)."""
        x = inputs.expand(len(self.weights[0]), *inputs.shape)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if k < len(self.weights) - 1:
                x = torch.relu(x)
        return x.squeeze(-1)


def path_encoding(graphs: GraphBatch, most_bits: int = MOST_BITS) -> NDArray[np.float32]:
    """Which sequences of operations occur on paths from input to output; 0/1, (n, bits).

    Sequences are sorted by length; the longest length whose sequences all fit into ``most_bits`` is the last one kept.
    """
    labels = len(graphs.vocabulary)
    length, bits = 0, 1
    while length < graphs.width - 2 and bits + labels ** (length + 1) <= most_bits:
        length += 1
        bits += labels**length
    parts = [_paths(graphs.take(slice(k, k + CHUNK)), length) for k in range(0, len(graphs), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros((0, bits), dtype=np.float32)


def _paths(graphs: GraphBatch, longest: int) -> NDArray[np.float32]:
    n, width = graphs.ops.shape
    labels = len(graphs.vocabulary)
    adjacency = graphs.adjacency()
    last = graphs.sizes.astype(np.intp) - 1
    rows = np.arange(n)
    is_op = graphs.ops >= FIRST_OP_CODE
    one_hot = graphs.ops[:, :, None] == FIRST_OP_CODE + np.arange(labels)
    # reach[g, v, s]: a path from the input to v carries sequence s, v's own operation included; all of one length.
    reach = np.zeros((n, width, 1), dtype=np.bool_)
    reach[:, 0, 0] = True
    found = []
    for length in range(longest + 1):
        into = np.matmul(adjacency.transpose(0, 2, 1).astype(np.float32), reach.astype(np.float32)) > 0
        found.append(into[rows, last])
        if length < longest:
            into &= is_op[:, :, None]
            reach = (into[:, :, :, None] & one_hot[:, :, None, :]).reshape(n, width, -1)
    return np.concatenate(found, axis=1).astype(np.float32)
