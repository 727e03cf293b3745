"""Pickles of plain data. A pickle can run any code when it is loaded, so these are read by an unpickler that knows
containers, numbers, strings and arrays of numbers, and refuses everything else."""

from __future__ import annotations

import bz2
import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from nas.tables.table import TableError

_DAMAGED = (TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")  # NumPy's own name for it since 2.0
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): codecs.encode,  # of the bytes of a number, before protocol 3
            ("numpy.core.multiarray", "scalar"): scalar_of_numpy(),
            ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no table needs")
        return known[module, name]


def scalar_of_numpy() -> Any:
    """What a pickle calls ``numpy.core.multiarray.scalar``."""
    return np.float64(0.0).__reduce__()[0]


def read_pickle(path: Path) -> Any:
    """What a pickle holds, compressed by bzip2 where its name ends in ``.pbz2``.

    Raises:
        TableError: it can't be read, or asks for more than plain data.
    """
    try:
        with bz2.open(path) if path.suffix == ".pbz2" else path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, *_DAMAGED) as error:
        raise TableError(f"{path} is not read: {error}.") from None
