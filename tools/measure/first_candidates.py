"""How long the candidates take that a search begins with, as multiples of a network's time, deployed in onnxruntime.

    python tools/measure/first_candidates.py configs/search/gemnet_a_fast.py [--reference gemnet_a_202611]

One thread, in turns with the reference; several numbers of images at a time: the ratios' geometric mean.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.models import genome_for
from gemnet.sources import GenomeSource, Images, describe
from nas.search.config import load_config
from nas.spaces.base import Candidate
from nas.spaces.gemnet import GEMNetSpace
from nas.studies.comparison.timing import FitOptions, RelativeTimes


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--reference", default="gemnet_a_202611")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    options = parser.parse_args()
    config = load_config(options.config)
    space = GEMNetSpace(**{"num_classes": 10, **config.space.options})
    images = Images(space.template.input_size, space.in_chans, space.template.num_classes)
    reference = describe(options.reference, GenomeSource(genome_for(options.reference)), images)
    watch = RelativeTimes(reference, images, FitOptions("time", tuple(options.batch_sizes)))
    print(f"{'time':>5} {'M MACs':>7}  cell and choices")
    for data in config.search.first:
        candidate = Candidate.from_json(data)
        space.check(candidate)
        network = describe("candidate", GenomeSource(space.genome(candidate)), images)
        choices = ", ".join(f"{name} {value}" for name, value in candidate.macro)
        ops = " ".join(candidate.cell.ops)
        print(f"{watch.of(network):5.2f} {network.macs / 1e6:7.1f}  {ops}; {choices}", flush=True)


if __name__ == "__main__":
    main()
