"""``python tools/export.py`` and ``gemnet-export``: a network as a module of its own, or as a file for a runtime."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from nas.commands.entry import command
from nas.commands.options import check_output, command_parser, positive

DESCRIPTION = """\
Exports a network, in one of four ways:
  --name NAME      a Python module that registers the network with timm and mmdet: genome, trained weights with their
                   preprocessing and classes, and a config fragment with the backbone of a detector
  --to FORMAT      a deployed file for a runtime, checked against PyTorch on real images; for ONNX with a predict.py
                   that needs neither gemnet nor timm nor torch
  --genome FILE    the genome alone, as found or at another size
  --ledger FILE    every evaluation of a search as a table
For a folder that timm's local-dir: reads, use `tools/zoo.py folder`."""

EXAMPLES = """\
examples
  the network of a search as a module:
    {program} work_dirs/default --name mynet
  the network of a training (its best checkpoint), or any checkpoint:
    {program} work_dirs/finetune --name mynet
    {program} work_dirs/finetune/epoch_30.pth --name mynet
  a genome from anywhere, into a folder of your choice:
    {program} mygenome.json --name mynet --out networks/mynet
  the network of a search, or one of ours, for onnxruntime:
    {program} work_dirs/default --to onnx
    {program} gemnet_a_cifar.cifar10 --to onnx --dynamic batch,size --out exported/cifar
  in int8, calibrated and measured with images in one folder per class:
    {program} gemnet_a.imagenette96 --to onnx --int8 --images data/imagenette96/train
  the cell of a search on small images as an untrained network for 224x224 with at most 300 million MACs:
    {program} work_dirs/cifar10 --name mynet --form imagenet --size b --max-macs 300e6 --genome mynet.json
  another candidate of a search, as its report shows them:
    {program} work_dirs/default --name no17 --number 17 --genome no17.json
  the network of a search, wider, with depths, stem and head as they are:
    {program} work_dirs/cifar10 --name mynet --max-macs 12e6 --genome mynet.json
  every evaluation of a search as a table:
    {program} work_dirs/cifar10 --ledger evaluations.csv

then
  PYTHONPATH=exported/mynet python -c "import mynet, timm; model = timm.create_model('mynet', pretrained=True)"
  python exported/gemnet_a_cifar.cifar10-onnx/predict.py photo.jpg

docs: docs/deploy.md"""


@command("export")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser(program)
    options = parser.parse_args(arguments)
    _check(parser, options)
    if options.ledger is not None:
        _ledger(options)
    elif options.to is not None:
        _runtime(options)
    elif options.genome is not None:
        _genome(options)
    else:
        _module(options)
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "source",
        help="work folder of a search or a training, weights (.pth, .safetensors), a genome (.json), a tag; with --to "
        "also any network that timm knows",
    )
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights, where a file holds both")
    parser.add_argument(
        "--out", metavar="D", help="folder to write (default: exported/<name>, exported/<name>-<format>)"
    )
    module = parser.add_argument_group("as a module, or a genome")
    module.add_argument("--name", help="what timm and mmdet will call it: letters, digits and '_'")
    module.add_argument("--genome", metavar="FILE", help="write the genome alone to this .json")
    module.add_argument(
        "--number", metavar="N", type=int, help="--genome of candidate N of the search, not of its best"
    )
    module.add_argument("--max-macs", metavar="N", type=float, help="--genome as wide as so many multiply-adds allow")
    module.add_argument(
        "--form", choices=["imagenet", "cifar"], help="put the cell into a network for 224x224 or 32x32"
    )
    module.add_argument("--size", choices=["a", "b", "c"], help="of that network: depths, stem and head")
    runtime = parser.add_argument_group("for a runtime")
    runtime.add_argument("--to", metavar="FORMAT", help="onnx, openvino, torch-export or litert")
    runtime.add_argument("--int8", action="store_true", help="quantise weights and activations (onnx, openvino)")
    runtime.add_argument(
        "--dynamic",
        metavar="D",
        default="",
        help="leave open: batch, size, or batch,size (default: one image, one size)",
    )
    runtime.add_argument("--input-size", metavar="N", type=positive, help="side of the images (default: as trained)")
    runtime.add_argument(
        "--images", metavar="D", help="images in a folder for each class, to measure the accuracy with and calibrate"
    )
    runtime.add_argument(
        "--calibrate", metavar="N", type=positive, help="of them for --int8 alone (default: a third, 200 at most)"
    )
    runtime.add_argument(
        "--measure", metavar="N", type=positive, default=1000, help="of the others measured (default %(default)s)"
    )
    parser.add_argument("--ledger", metavar="FILE", help="write every evaluation of the search to this .csv instead")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends with a message where the options contradict each other."""
    if [options.name, options.ledger, options.to].count(None) != 2:
        parser.error(
            "give --name NAME for a module or genome, --to FORMAT for a runtime, or --ledger FILE for the evaluations"
        )
    if options.ledger is not None and (options.genome or options.out):
        parser.error("--ledger writes the evaluations alone: leave out --genome and --out")
    if options.genome is not None and options.out is not None:
        parser.error("--genome writes the genome alone: leave out --out")
    if options.max_macs is None and (options.form is not None or options.size is not None):
        parser.error("--form and --size need --max-macs N: the cell is made as wide as N allows")
    if options.number is not None and options.genome is None:
        parser.error("--number needs --genome FILE: a candidate has no trained weights")
    if options.genome is None and options.max_macs is not None:
        parser.error("--max-macs needs --genome FILE, the .json to write the resized network to")
    if options.to is not None and options.genome is not None:
        parser.error("--to writes a file for a runtime: leave out --genome")
    if options.to is None and (options.int8 or options.dynamic or options.images or options.input_size):
        parser.error("--int8, --dynamic, --input-size and --images go with --to FORMAT")


def _ledger(options: argparse.Namespace) -> None:
    from nas.search.export import save_ledger

    check_output(options.ledger)
    print(f"Wrote {options.ledger}: {save_ledger(Path(options.source), Path(options.ledger))} evaluations")


def _genome(options: argparse.Namespace) -> None:
    from gemnet.macs import macs
    from nas.search.export import save_genome

    check_output(options.genome)
    genome = save_genome(
        Path(options.source),
        options.name,
        Path(options.genome),
        options.form,
        options.size,
        options.max_macs,
        options.number,
    )
    print(f"Wrote {options.genome}: {macs(genome) / 1e6:.1f} M MACs at {genome.input_size}x{genome.input_size}")
    print(f"Next: timm.create_model('gemnet', genome={options.genome!r})")


def _module(options: argparse.Namespace) -> None:
    from gemnet.files import taken_back
    from gemnet.quoting import printable
    from nas.search.export import export

    folder = Path(options.out or Path("exported") / options.name)
    check_output(folder / "__init__.py")
    with taken_back(folder):
        made = export(options.source, options.name, folder, options.ema)
    shown = shlex.quote(str(folder))
    build = f"timm.create_model('{made.name}'" + (", pretrained=True)" if made.weights is not None else ")")
    print(f"Wrote {shown}: {', '.join(sorted(item.name for item in folder.iterdir()))}")
    if made.source is not None:
        print(f"Weights of {printable(made.source)}: {printable(made.metadata.summary())}")
    print("Next, build it with timm:")
    print(f'  PYTHONPATH={shown} python -c "import {made.name}, timm; print({build})"')
    print(f"or make it a detector's backbone: _base_ = [..., {str(made.detector)!r}], and run with PYTHONPATH={shown}")


def _runtime(options: argparse.Namespace) -> None:
    from gemnet.runtimes.export import check_request, export_for_runtime
    from gemnet.runtimes.images import split_labelled
    from gemnet.runtimes.networks import open_network

    dynamic = tuple(name for name in options.dynamic.split(",") if name)
    network = open_network(options.source, options.ema)
    if options.input_size is not None:
        network = network.at(options.input_size)
    folder = Path(options.out or Path("exported") / f"{network.name}-{options.to}{'-int8' * options.int8}")
    check_output(folder / "model")
    check_request(network, options.to, folder, dynamic, options.int8, options.images is not None)
    labelled = None
    if options.images is not None:
        calibration = options.calibrate if options.int8 else 0
        labelled = split_labelled(Path(options.images), network.metadata, calibration, options.measure)
    if not network.trained:
        print(f"{network.name} comes without trained weights: what is exported is of use for measuring only.")
    print(f"Writing {network.name} as {options.to} ...", flush=True)
    made = export_for_runtime(network, options.to, folder, dynamic, options.int8, labelled)
    size = made.file.stat().st_size / 1e6
    print(
        f"Wrote {shlex.quote(str(folder))}: {', '.join(sorted(item.name for item in folder.iterdir()))} ({size:.1f} MB)"
    )
    print(f"Logits agree with PyTorch's to {made.difference:.0e} of the largest{' in float32' * options.int8}.")
    if made.accuracies is not None:
        before, after = made.accuracies
        print(
            f"Top-1 on {len(labelled.labels) if labelled else 0} images: {before:.2f} % in PyTorch, {after:.2f} % here."
        )
    if made.speed is not None:
        print(made.speed.text())
    if (folder / "predict.py").is_file():
        print(f"Next: python {shlex.quote(str(folder / 'predict.py'))} IMAGE...")
