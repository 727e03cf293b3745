"""``python tools/export.py`` and ``gemnet-export``: give a found network a name and a folder of its own."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from gemnet.macs import macs
from nas.commands.entry import command

DESCRIPTION = """\
Turns the network a search found into a folder that can be copied and imported: the genome, the trained weights, a
module that registers its name with timm and mmdet, and a config fragment with the backbone of a detector."""

EXAMPLES = """\
examples
  the network of a search:
    {program} work_dirs/default --name mynet
  a genome from anywhere, into a folder of your choice:
    {program} mygenome.json --name mynet --out networks/mynet
  the cell of a search on small images as a network for 224x224, of at most 300 million MACs; a genome, to be trained:
    {program} work_dirs/cifar10 --name mynet --form imagenet --size b --max-macs 300e6 --genome mynet.json
  the network of a search, twice as large, with depths, stem and head as they are:
    {program} work_dirs/cifar10 --name mynet --max-macs 12e6 --genome mynet.json
  every evaluation of a search as a table:
    {program} work_dirs/cifar10 --ledger evaluations.csv

then, with the folder on PYTHONPATH
    import mynet, timm
    model = timm.create_model('mynet', num_classes=5)"""


@command("export")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES.replace("{program}", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", help="work folder of a search, or a genome (.json)")
    parser.add_argument("--name", help="what timm and mmdet will call it: letters, digits and '_'")
    parser.add_argument("--out", metavar="D", help="folder to write (default: exported/<name>)")
    parser.add_argument("--genome", metavar="FILE", help="write the genome alone to this .json")
    parser.add_argument("--max-macs", metavar="N", type=float, help="--genome as wide as so many multiply-adds allow")
    parser.add_argument(
        "--form", choices=["imagenet", "cifar"], help="put the cell into a network for 224x224 or 32x32"
    )
    parser.add_argument("--size", choices=["a", "b", "c"], help="of that network: depths, stem and head")
    parser.add_argument("--ledger", metavar="FILE", help="write every evaluation of the search to this .csv instead")
    options = parser.parse_args(arguments)
    if (options.name is None) == (options.ledger is None):
        parser.error("give --name NAME for the network, or --ledger FILE for the evaluations")
    if options.ledger is not None and (options.genome or options.out):
        parser.error("--ledger writes the evaluations alone: leave out --genome and --out")
    if options.genome is not None and options.out is not None:
        parser.error("--genome writes the genome alone: leave out --out")
    if options.max_macs is None and (options.form is not None or options.size is not None):
        parser.error("--form and --size need --max-macs N: the cell is made as wide as N allows")
    if options.genome is None and options.max_macs is not None:
        parser.error("--max-macs needs --genome FILE, the .json to write the resized network to")
    from nas.search.export import export, save_genome, save_ledger

    if options.ledger is not None:
        print(f"Wrote {options.ledger}: {save_ledger(Path(options.source), Path(options.ledger))} evaluations")
        return 0
    if options.genome is not None:
        genome = save_genome(
            Path(options.source),
            options.name,
            Path(options.genome),
            options.form,
            options.size,
            options.max_macs,
        )
        print(f"Wrote {options.genome}: {macs(genome) / 1e6:.1f} M MACs at {genome.input_size}x{genome.input_size}")
        print(f"Next: timm.create_model('gemnet', genome={options.genome!r})")
        return 0
    made = export(Path(options.source), options.name, Path(options.out or Path("exported") / options.name))
    folder = shlex.quote(str(made.module.parent))
    channels = f", in_chans={made.in_chans}" if made.in_chans != 3 else ""
    load = f"{made.name}.load(model)" if made.weights is not None else "print(model)"
    print(f"Wrote {folder}: {', '.join(sorted(item.name for item in made.module.parent.iterdir()))}")
    print("Next, build it with timm:")
    print(
        f'  PYTHONPATH={folder} python -c "import {made.name}, timm; '
        f"model = timm.create_model('{made.name}'{channels}); {load}\""
    )
    print(f"or make it a detector's backbone: _base_ = [..., '{made.detector}'], and run with PYTHONPATH={folder}")
    return 0
