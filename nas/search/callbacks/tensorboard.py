"""TensorBoard: curves of every evaluation, the cell and the search as pictures."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from nas.evaluation.records import Evaluation
from nas.search.callbacks.base import Begun, Callback, figures
from nas.search.report.result import SearchResult

FOLDER = "tensorboard"


class TensorBoard(Callback):
    """Writes ``tensorboard`` in the work folder: ``tensorboard --logdir work_dirs`` shows all searches in it.

    A resumed search writes it anew from the ledger.
    """

    def begin(self, search: Begun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._search = search
        folder = search.folder / FOLDER
        for old in folder.glob("events.out.tfevents*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("config", f"```\n{json.dumps(search.config, indent=2)}\n```")

    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        for name, value in figures(evaluation, score, best).items():
            self._writer.add_scalar(name, value, evaluation.proposal.number)

    def end(self, result: SearchResult | None) -> None:
        for file in self._search.artefacts if result is not None else ():
            if file.suffix == ".png":
                picture = np.asarray(Image.open(file).convert("RGB"))
                self._writer.add_image(file.stem, picture, dataformats="HWC")
        self._writer.close()
