"""``python tools/zoo.py`` and ``gemnet-zoo``: the model zoo, from trained weights to tables, folders and a hub."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.entry import command
from nas.commands.options import check_output, command_parser

if TYPE_CHECKING:
    from gemnet.zoo.results import Result, Speed

DESCRIPTION = """\
Manages the model zoo. Figures are read from logs in the repository, and tables and cards are made from them."""

EXAMPLES = """\
examples
  the published weights:
    {program} list
  add weights to the package, with row, table and card:
    {program} publish work_dirs/cifar10/weights/gemnet_a_cifar_seed0_1a2b3c4d.safetensors gemnet_a_cifar.cifar10 \\
        --data CIFAR-10 --source cifar10 --resolution 32 --log model_zoo/logs/cifar10.csv \\
        --config configs/comparison/cifar10.py --search docs/gemnet_search.md
  the row of a network it is compared with, from the same log:
    {program} record mobilenetv2.cifar10 --peer --data CIFAR-10 --source cifar10 --resolution 32 \\
        --log model_zoo/logs/cifar10.csv --config configs/comparison/cifar10.py
  the row of a detector, from `tools/test.py --final --out`:
    {program} record gemnet_a.coco320_faster_rcnn --detector FasterRCNN --data COCO-320 --source coco320 \\
        --resolution 320 --log model_zoo/logs/coco320_faster_rcnn.json --config configs/faster_rcnn_gemnet_coco320.py \\
        --macs 143368820 --params 436336
  a detector into the package, from a checkpoint of tools/train.py; --config is what it was trained with:
    {program} publish work_dirs/faster_rcnn_gemnet_coco320/epoch_9.pth gemnet_a.coco320_faster_rcnn \\
        --detector FasterRCNN --data COCO-320 --source coco320 --resolution 320 \\
        --log model_zoo/logs/coco320_faster_rcnn.json --config configs/faster_rcnn_gemnet_coco320.py
  a folder for timm's local-dir:, of published weights or of your own, and from there to a hub:
    {program} folder gemnet_a_cifar.cifar10 --out exported/gemnet_a_cifar
    {program} folder work_dirs/finetune --out exported/mynet
    {program} hub exported/gemnet_a_cifar --repo me/gemnet_a_cifar
  does everything agree; is an accuracy what the table says:
    {program} check
    {program} check --accuracy gemnet_a_cifar.cifar10

exit codes: 0 done, 1 something disagrees, 2 an error that you can fix (one message says how)"""


@command("zoo")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    from gemnet.machine import HUGE_PAGES

    # Read when torch allocates for the first time. CPU times hang on where memory lies; with it they repeat.
    os.environ.setdefault(HUGE_PAGES, "1")
    return options.run(options)


def _list(options: argparse.Namespace) -> int:
    from gemnet.detector_weights import published_detectors
    from gemnet.metadata import read_metadata
    from gemnet.weights import packaged_weights

    for name, weights in sorted(packaged_weights().items()):
        print(f"{name}  {weights.num_classes} classes, {weights.input_size}x{weights.input_size}  {weights.file}")
    for name, path in published_detectors().items():
        about = read_metadata(path)
        print(f"{name}  {about.notes.get('detector')}, {len(about.classes)} classes  {path.name}")
    if not packaged_weights() and not published_detectors():
        print("No weights are published yet.")
    return 0


def _publish(options: argparse.Namespace) -> int:
    from gemnet.zoo.measure import OPENINGS, build, measure_accuracy, measure_speeds
    from gemnet.zoo.publish import discard_weights, enter_weights, write_weights
    from gemnet.zoo.results import save_result

    if options.detector:
        return _publish_detector(options)
    row = _row(options)  # before anything is written: a log that can't be read says so now
    weights = write_weights(
        Path(options.weights),
        options.name,
        options.description or "",
        options.resolution,
        options.mean,
        options.std,
        precision=options.precision,
    )
    try:
        value = measure_accuracy(options.name, weights, options.source, options.zoo / OPENINGS)
        speed = _known_speed(row, options.zoo)
        if speed is None:
            (speed,) = measure_speeds([(build(options.name, weights), weights.input_size, 3)])
    except BaseException:
        discard_weights(weights)
        raise
    enter_weights(options.name, weights)
    row = replace(row, weights=weights.file, weights_value=round(value, 4), precision=weights.precision, speed=speed)
    save_result(row, options.zoo)
    print(f"Wrote {weights.path} ({weights.path.stat().st_size:,} bytes): {value:.2f} % top-1 as stored.")
    return _tables(options)


def _publish_detector(options: argparse.Namespace) -> int:
    from gemnet.detector_weights import withdraw_detector
    from gemnet.metadata import read_metadata
    from gemnet.zoo.detectors import open_detector, write_detector
    from gemnet.zoo.results import ZooError, save_result

    if options.mean or options.std:
        raise ZooError(
            "--mean and --std are of classifiers; a detector's checkpoint says how its images were normalised."
        )
    open_detector(Path(options.weights), options.name)  # what can't be published says so at once
    measured = cache(lambda: _detector_costs(Path(options.weights), options.zoo.parent / options.config))
    row = _row(options, lambda: measured()[:2])
    path = write_detector(Path(options.weights), options.name, options.description or "", options.precision)
    epochs = int(read_metadata(path).notes.get("epochs", 0))
    row = replace(row, weights=path.name, precision=options.precision, epochs=row.epochs or epochs)
    row = replace(row, speed=measured()[2])
    try:
        value = _measured(row, options.zoo)
    except BaseException:
        withdraw_detector(options.name)
        raise
    save_result(replace(row, weights_value=round(value, 4)), options.zoo)
    print(f"Wrote {path} ({path.stat().st_size:,} bytes): {value:.2f} % box AP as stored.")
    return _tables(options)


def _measured(row: Result, zoo: Path) -> float:
    """The figure of a row's weights, as they are stored, on the official test images."""
    from gemnet.zoo.measure import OPENINGS, measure_accuracy

    if row.task == "detection":
        from gemnet.zoo.detectors import measure_detector

        return measure_detector(row.name, zoo.parent / row.config, zoo / OPENINGS)
    from gemnet.weights import find_weights

    return measure_accuracy(row.name, find_weights(row.name), row.source, zoo / OPENINGS)


def _record(options: argparse.Namespace) -> int:
    from gemnet.zoo.results import save_result

    row = _row(options)
    (options.zoo / "results").mkdir(parents=True, exist_ok=True)
    row = replace(row, speed=_known_speed(row, options.zoo))
    print(f"Wrote {save_result(row, options.zoo)}: {row.metric} {row.text()}.")
    return _tables(options)


def _known_speed(row: Result, zoo: Path) -> Speed | None:
    """The times that a row of this name has: another training of the same network takes no other time."""
    from gemnet.zoo.results import load_results

    there = load_results(zoo) if (zoo / "results").is_dir() else ()
    before = next((each for each in there if each.name == row.name), None)
    return before.speed if before is not None and (before.macs, before.params) == (row.macs, row.params) else None


def _row(options: argparse.Namespace, count: Callable[[], tuple[int, int]] | None = None) -> Result:
    from gemnet.zoo.rows import LoggedRow, row_from_log

    said = LoggedRow(
        name=options.name,
        data=options.data,
        source=options.source,
        resolution=options.resolution,
        log=options.log,
        config=options.config,
        search=options.search or "",
        column=options.column,
        rows=_wanted_rows(options.rows),
        peer=getattr(options, "peer", False),
        detector=getattr(options, "detector", None),
        macs=options.macs,
        params=options.params,
    )
    return row_from_log(said, options.zoo.parent, count)


def _wanted_rows(items: Sequence[str] | None) -> dict[str, str] | None:
    for item in items or ():
        if "=" not in item:
            from gemnet.errors import GemnetError

            raise GemnetError(f"--rows takes COLUMN=VALUE, got {item!r}; for example --rows network=mine phase=test.")
    return None if items is None else dict(item.split("=", 1) for item in items)


def _withdraw(options: argparse.Namespace) -> int:
    from gemnet.detector_weights import published_detectors, withdraw_detector
    from gemnet.zoo.publish import withdraw_weights
    from gemnet.zoo.results import load_results

    load_results(options.zoo)  # that there is one, before anything is taken away
    if options.name in published_detectors():
        withdraw_detector(options.name)
    else:
        withdraw_weights(options.name)
    (options.zoo / "results" / f"{options.name}.json").unlink(missing_ok=True)
    (options.zoo / f"{options.name}.md").unlink(missing_ok=True)
    return _tables(options)


def _speed(options: argparse.Namespace) -> int:
    from gemnet.detector_weights import find_detector_file
    from gemnet.errors import GemnetError, nearest
    from gemnet.zoo.measure import measure_speeds
    from gemnet.zoo.results import load_results, save_result
    from nas.studies.comparison.zoo_rows import build_row

    results = {result.name: result for result in load_results(options.zoo)}
    classifiers = [name for name, result in results.items() if result.task == "classification"]
    known = [name for name, result in results.items() if name in classifiers or result.weights]
    for name in options.names:
        if name not in known:
            raise GemnetError(f"The zoo has no classifier or published detector {name!r}.{nearest(name, known)}")
    wanted = options.names or classifiers
    networks = [
        (results[name], *build_row(results[name], options.zoo.parent)) for name in classifiers if name in wanted
    ]
    speeds = measure_speeds([(model, result.resolution, channels) for result, model, channels in networks])
    for (result, _, _), speed in zip(networks, speeds, strict=True):
        save_result(replace(result, speed=speed), options.zoo)
        deployed = "" if speed.onnx_single is None else f"; deployed {1000 * speed.onnx_single:.3g} ms at batch 1"
        print(f"{result.name}: {1000 * speed.seconds:.3g} ms of CPU time an image{deployed}")
    for name in wanted:
        if name not in classifiers:
            row = results[name]
            macs, params, speed = _detector_costs(find_detector_file(name), options.zoo.parent / row.config)
            save_result(replace(row, macs=macs, params=params, speed=speed), options.zoo)
            print(f"{name}: {speed.seconds:.3g} s of CPU time an image; backbone {macs / 1e6:.4g} M MACs")
    return _tables(options)


def _detector_costs(checkpoint: Path, config: Path) -> tuple[int, int, Speed]:
    """MACs and parameters of a trained detector's backbone, and its CPU time."""
    import torch

    from gemnet.detection.costs import measure_costs
    from gemnet.machine import processor_name
    from gemnet.training.runner_config import find_runner_config, load_runner_config
    from gemnet.zoo.results import Speed

    costs = measure_costs(load_runner_config(find_runner_config(str(config))), str(checkpoint))
    return round(costs.macs), costs.params, Speed(float(f"{costs.seconds:.3g}"), 1, processor_name(), torch.__version__)


def _tables(options: argparse.Namespace) -> int:
    from gemnet.files import write_text
    from gemnet.zoo.picture import PICTURE, draw_zoo, is_current
    from gemnet.zoo.results import load_results
    from gemnet.zoo.tables import generated

    for path, text in generated(options.zoo).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(f"Wrote {path}")
    results = load_results(options.zoo)
    if not is_current(results, options.zoo / PICTURE):
        draw_zoo(results, options.zoo / PICTURE)
        print(f"Wrote {options.zoo / PICTURE}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from gemnet.zoo.check import TOLERANCE, problems

    found = problems(options.zoo)
    if options.accuracy and not found:
        from gemnet.zoo.rows import published_row

        result = published_row(options.zoo, options.accuracy)
        assert result.weights_value is not None
        value = _measured(result, options.zoo)
        print(f"{result.name}: {value:.2f} % {result.metric}, the zoo says {result.weights_value:.2f} %.")
        if abs(value - result.weights_value) > TOLERANCE:
            found.append(f"{result.name}: the accuracy is not reproduced.")
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print("The zoo agrees with its files.")
    return 1 if found else 0


def _folder(options: argparse.Namespace) -> int:
    from gemnet.files import taken_back
    from gemnet.zoo.folder import write_folder

    source = options.source
    card = options.zoo / f"{source}.md"
    out = Path(options.out or Path("exported") / (Path(source).stem if Path(source).exists() else source))
    check_output(out / "config.json")
    with taken_back(out):
        made = write_folder(source, out, card if card.is_file() else None, options.ema)
    print(f"Wrote {made}: {', '.join(sorted(item.name for item in made.iterdir()))}")
    print(f"After import gemnet: timm.create_model('local-dir:{made}', pretrained=True)")
    return 0


def _hub(options: argparse.Namespace) -> int:
    from gemnet.zoo.folder import push_folder

    address = push_folder(Path(options.folder), options.repo, options.token, options.private, options.endpoint)
    print(f"Pushed to {address}. After import gemnet: timm.create_model('hf-hub:{options.repo}', pretrained=True)")
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("--zoo", type=Path, default=Path("model_zoo"), metavar="D", help="default: model_zoo")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="the published weights").set_defaults(run=_list)

    publish = commands.add_parser("publish", help="put trained weights into the package, with row, table and card")
    publish.add_argument("weights", help="weights (.safetensors), or a checkpoint of tools/train.py (.pth)")
    _add_row_options(publish)
    publish.add_argument("--description", help="what it was trained on, one sentence")
    for name in ("mean", "std"):
        publish.add_argument(
            f"--{name}", type=float, nargs=3, help="of each channel; by default what the weights or the network say"
        )
    publish.add_argument("--precision", choices=("float16", "float32"), default="float16", help="of the stored weights")
    publish.set_defaults(run=_publish)

    record = commands.add_parser("record", help="a row without weights: a peer, a detector")
    _add_row_options(record)
    record.add_argument("--peer", action="store_true", help="another's network, measured here")
    record.set_defaults(run=_record)

    withdraw = commands.add_parser("withdraw", help="take weights and their row away")
    withdraw.add_argument("name")
    withdraw.set_defaults(run=_withdraw)

    speed = commands.add_parser("speed", help="measure CPU time of an image, rows in turns, and write it into them")
    speed.add_argument("names", nargs="*", help="rows: classifiers, published detectors (default: all classifiers)")
    speed.set_defaults(run=_speed)

    commands.add_parser("tables", help="write README, metafile, model-index and cards").set_defaults(run=_tables)

    check = commands.add_parser("check", help="do files, figures, logs and tables agree?")
    check.add_argument("--accuracy", metavar="NAME", help="also measure these weights on the official test images")
    check.set_defaults(run=_check)

    folder = commands.add_parser("folder", help="a Hugging Face style folder that timm's local-dir: reads")
    folder.add_argument(
        "source", help="a tag, or the folder of a search or a training, or weights (.pth, .safetensors)"
    )
    folder.add_argument("--out", metavar="D", help="folder to write (default: exported/<name>)")
    folder.add_argument("--ema", action="store_true", help="the moving average of the weights, where a file holds both")
    folder.set_defaults(run=_folder)

    hub = commands.add_parser("hub", help="push such a folder to a hub")
    hub.add_argument("folder")
    hub.add_argument("--repo", required=True, metavar="OWNER/NAME")
    hub.add_argument("--token", help="default: HF_TOKEN, or what `hf auth login` keeps; others see a command line")
    hub.add_argument("--private", action="store_true", help="a new repository is seen by its owner only")
    hub.add_argument("--endpoint", metavar="URL", help="another hub than Hugging Face's")
    hub.set_defaults(run=_hub)
    return parser


def _add_row_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="<network>.<tag>, such as gemnet_a_cifar.cifar10")
    parser.add_argument("--data", required=True, help="the data set's name for people, such as CIFAR-10")
    parser.add_argument("--source", required=True, help="the data set as configs call it, such as cifar10")
    parser.add_argument("--resolution", type=int, required=True, metavar="N", help="side of the images in pixels")
    parser.add_argument(
        "--log", required=True, metavar="FILE", help="where the figures stand: a .csv or .json of the repository"
    )
    parser.add_argument("--column", metavar="C", help="column or key of the figure (default: of our own tools' files)")
    parser.add_argument(
        "--rows",
        nargs="*",
        metavar="KEY=VALUE",
        help="rows of a .csv that count (default: network=<network> phase=test)",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="what it was trained with")
    parser.add_argument("--search", metavar="FILE", help="what tells of the search it comes from")
    parser.add_argument("--detector", metavar="M", help="the row is a detector's of this method, such as RetinaNet")
    parser.add_argument("--macs", type=int, help="default: the log's, or counted; of a detector the backbone's")
    parser.add_argument("--params", type=int, help="likewise")
