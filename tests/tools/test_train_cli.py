"""`tools/train.py` and `tools/test.py` on digits: training, resuming, measuring, and refusing what is wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gemnet.classification.metric import Accuracy
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.training import runner_config as runner_config_module
from gemnet.training.hooks import FiniteLoss, LossError
from gemnet.training.runner import latest_checkpoint
from gemnet.training.runner_config import find_runner_config, load_runner_config
from nas.commands import test as test_command
from nas.commands import train as train_command

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = str(REPOSITORY / "configs/classification/gemnet_a_cifar_cifar10.py")
TINY = [
    *(
        f"{kind}_dataloader.dataset.{key}"
        for kind in ("train", "val", "test")
        for key in ("source=digits", "resolution=8")
    ),
    "train_dataloader.dataset.subset=0.25",
    "train_dataloader.batch_size=32",
    "train_cfg.max_epochs=3",
    "param_scheduler.0.end=4",
    "param_scheduler.1.T_max=3",
    "model.data_preprocessor.flip=False",
    "model.options.drop_rate=0.2",
]
_runs = iter(range(1000))


@pytest.fixture(autouse=True)
def _isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(work_dir, *options, flags=()):
    # mmengine names its per-run singletons by the second; several runs a second need names of their own
    name = f"experiment_name=run{next(_runs)}"
    return train_command.main([CONFIG, "--work-dir", str(work_dir), *flags, "--cfg-options", name, *TINY, *options])


def measure(work_dir, checkpoint, *options, flags=()):
    name = f"experiment_name=run{next(_runs)}"
    return test_command.main(
        [CONFIG, str(checkpoint), "--work-dir", str(work_dir), *flags, "--cfg-options", name, *TINY, *options]
    )


def refused(capsys, code, *words):
    """Asserts exit code 2 and one message with these words; returns the message."""
    assert code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished training of three epochs."""
    folder = tmp_path_factory.mktemp("trained")
    os.environ.setdefault("GEMNET_CACHE", str(folder / "cache"))
    torch.set_num_threads(1)
    assert train(folder) == 0
    return folder


def test_training_learns_and_leaves_checkpoints_and_curves(trained):
    records = [json.loads(line) for file in trained.glob("*/vis_data/scalars.json") for line in file.open()]
    losses = [record["loss"] for record in records if "loss" in record]
    accuracies = [record["accuracy/top1"] for record in records if "accuracy/top1" in record]
    assert losses[-1] < losses[0]
    assert accuracies[-1] > 15  # chance: 10
    assert (trained / "epoch_3.pth").is_file()
    assert list(trained.glob("*/vis_data/events.out.tfevents*")), "no TensorBoard file"


def test_the_terminal_gets_what_one_reads_and_the_log_file_all_of_it(tmp_path, capfd):
    assert train(tmp_path / "run", "train_cfg.max_epochs=1") == 0
    said = capfd.readouterr().out
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "Images: 324 to learn from, 143 to measure on. Weights that learn: 194,034." in said
    assert f"Environment, config and hooks: {log}" in said
    for screen in ("System environment", "custom_imports", "before_train_iter:"):
        assert screen in log.read_text()
        assert screen not in said
    assert len(said.splitlines()) < 25
    best = tmp_path / "run/best_accuracy_top1_epoch_1.pth"
    assert f"\nBest checkpoint: {best}\n" in said
    assert f"python tools/predict.py {tmp_path / 'run'} path/to/images\n" in said


def test_a_training_that_diverges_ends_before_anything_of_it_is_measured_or_kept(tmp_path, capsys):
    assert train(tmp_path / "run", "optim_wrapper.optimizer.lr=1e12", "param_scheduler.0.start_factor=1.0") == 1
    assert re.search(r"The loss became \S+ within 10 iterations\. Lower the learning rate", capsys.readouterr().err)
    assert not list((tmp_path / "run").glob("*.pth"))


def test_logits_that_are_not_finite_are_no_accuracy():
    metric = Accuracy()
    with pytest.raises(LossError, match="logits are not finite"):
        metric.process(None, [{"logits": torch.tensor([[0.0, torch.nan]]), "labels": torch.tensor([0])}])


def test_resumed_training_equals_uninterrupted_one(trained, tmp_path, capsys, monkeypatch):
    def interrupt(hook, runner, **_):
        if runner.iter == 20:  # in the third epoch of ten iterations
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FiniteLoss, "after_train_iter", interrupt)
        assert train(tmp_path / "run") == 130
    assert not (tmp_path / "run/epoch_3.pth").exists()
    assert train(tmp_path / "run", flags=["--resume"]) == 0
    whole = torch.load(trained / "epoch_3.pth", weights_only=False)
    parts = torch.load(tmp_path / "run/epoch_3.pth", weights_only=False)
    assert parts["meta"]["epoch"] == 3
    assert parts["meta"]["iter"] == whole["meta"]["iter"]
    assert parts["optimizer"]["param_groups"][0]["lr"] == whole["optimizer"]["param_groups"][0]["lr"]
    for kind in ("state_dict", "ema_state_dict"):
        for key, value in whole[kind].items():
            assert torch.equal(value, parts[kind][key]), (kind, key)
    assert "resumed epoch: 2" in capsys.readouterr().out + "".join(
        file.read_text() for file in (tmp_path / "run").glob("*/*.log")
    )


def test_the_first_interrupt_ends_a_training_with_its_epoch_and_a_checkpoint(trained, tmp_path, capfd, monkeypatch):
    def interrupt(hook, runner, **_):
        if runner.iter == 4:  # in the first epoch of ten iterations
            os.kill(os.getpid(), signal.SIGINT)

    rarely = "default_hooks.checkpoint.interval=3"
    with monkeypatch.context() as patch:
        patch.setattr(FiniteLoss, "after_train_iter", interrupt)
        assert train(tmp_path / "run", rarely) == 130
    said = capfd.readouterr().err
    assert "ends with its epoch" in said
    assert said.strip().splitlines()[-1].startswith("Interrupted. To go on: python tools/train.py ")
    assert [file.name for file in (tmp_path / "run").glob("epoch_*.pth")] == ["epoch_1.pth"]
    records = [json.loads(line) for file in (tmp_path / "run").glob("*/vis_data/scalars.json") for line in file.open()]
    assert sum("accuracy/top1" in record for record in records) == 1  # the epoch was measured, too
    assert train(tmp_path / "run", rarely, flags=["--resume"]) == 0
    whole, parts = (torch.load(file / "epoch_3.pth", weights_only=False) for file in (trained, tmp_path / "run"))
    for kind in ("state_dict", "ema_state_dict"):
        for key, value in whole[kind].items():
            assert torch.equal(value, parts[kind][key]), (kind, key)


KILLED = """
import os, signal, sys
from gemnet.training.hooks import FiniteLoss, LossError
from nas.commands import train

def kill(hook, runner, **_):
    if runner.iter == 20:
        os.kill(os.getpid(), signal.SIGKILL)

FiniteLoss.after_train_iter = kill
train.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.contract
def test_training_killed_in_the_middle_goes_on_from_a_checkpoint_that_is_carried_elsewhere(trained, tmp_path):
    options = ["--work-dir", str(tmp_path / "run"), "--cfg-options", "experiment_name=killed", *TINY]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, CONFIG, *options], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (tmp_path / "carried").mkdir()
    shutil.move(tmp_path / "run/epoch_2.pth", tmp_path / "carried/state.pth")
    assert train(tmp_path / "there", flags=["--resume", str(tmp_path / "carried/state.pth")]) == 0
    whole, parts = (torch.load(file / "epoch_3.pth", weights_only=False) for file in (trained, tmp_path / "there"))
    for kind in ("state_dict", "ema_state_dict"):
        for key, value in whole[kind].items():
            assert torch.equal(value, parts[kind][key]), (kind, key)


def test_latest_checkpoint_is_the_last_whole_one_where_a_kill_left_no_note(tmp_path):
    for epoch in (2, 10):
        torch.save({"epoch": epoch}, tmp_path / f"epoch_{epoch}.pth")
    (tmp_path / "epoch_11.pth").write_bytes((tmp_path / "epoch_10.pth").read_bytes()[:-40])
    assert latest_checkpoint(tmp_path) == str(tmp_path / "epoch_10.pth")
    (tmp_path / "last_checkpoint").write_text("")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "epoch_10.pth")
    (tmp_path / "last_checkpoint").write_text("/elsewhere/run/epoch_2.pth")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "epoch_2.pth")


def test_checkpoint_measures_as_the_training_did_and_final_test_is_logged(trained, tmp_path, capsys):
    records = [json.loads(line) for file in trained.glob("*/vis_data/scalars.json") for line in file.open()]
    expected = [record["accuracy/top1"] for record in records if "accuracy/top1" in record][-1]
    assert measure(tmp_path / "t", trained / "epoch_3.pth", flags=["--out", "figures.json"]) == 0
    assert json.loads(Path("figures.json").read_text())["accuracy/top1"] == pytest.approx(expected)
    assert not (tmp_path / "t/test_openings.jsonl").exists()

    assert measure(tmp_path / "t", trained / "epoch_3.pth", flags=["--final"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("test images: ")
    lines = (tmp_path / "t/test_openings.jsonl").read_text().splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert entry["images"] == 359
    assert entry["commit"]
    assert "epoch_3.pth" in entry["purpose"]


def test_bare_weights_of_the_network_are_measured_too(trained, tmp_path, capsys):
    weights = torch.load(trained / "epoch_3.pth", weights_only=False)["state_dict"]
    bare = {key.removeprefix("network."): value.contiguous() for key, value in weights.items()}
    save_file(bare, tmp_path / "weights.safetensors")
    assert measure(tmp_path / "t", tmp_path / "weights.safetensors", flags=["--out", "a.json"]) == 0
    assert measure(tmp_path / "t", trained / "epoch_3.pth", flags=["--out", "b.json"]) == 0
    assert Path("a.json").read_text() == Path("b.json").read_text()


def test_a_student_learns_from_a_teacher_that_its_checkpoint_does_not_carry(trained, tmp_path):
    assert train(tmp_path / "taught", f"model.teacher={trained / 'epoch_3.pth'}", "train_cfg.max_epochs=1") == 0
    taught, plain = (
        next(json.loads(line) for file in folder.glob("*/vis_data/scalars.json") for line in file.open())["loss"]
        for folder in (tmp_path / "taught", trained)
    )
    assert taught != plain  # of the same images by the same weights
    checkpoint = torch.load(tmp_path / "taught/epoch_1.pth", weights_only=False)
    assert (
        checkpoint["state_dict"].keys() == torch.load(trained / "epoch_3.pth", weights_only=False)["state_dict"].keys()
    )
    assert measure(tmp_path / "t", tmp_path / "taught/epoch_1.pth") == 0


def test_network_of_a_genome_is_the_network_of_its_name(trained, tmp_path):
    genome = REPOSITORY / "gemnet/genomes/gemnet_a_cifar.json"
    options = ["model.arch=None", f"model.genome={genome}"]
    assert measure(tmp_path / "t", trained / "epoch_3.pth", *options, flags=["--out", "a.json"]) == 0
    assert measure(tmp_path / "t", trained / "epoch_3.pth", flags=["--out", "b.json"]) == 0
    assert Path("a.json").read_text() == Path("b.json").read_text()


def test_work_folder_with_a_training_needs_resume(trained, capsys):
    before = (trained / "epoch_3.pth").read_bytes()
    refused(capsys, train(trained), str(trained), "--resume")
    assert (trained / "epoch_3.pth").read_bytes() == before


def test_resume_with_another_optimiser_or_schedule_is_refused(trained, capsys):
    others = ["param_scheduler.1.T_max=6", "optim_wrapper.optimizer.lr=0.01", "train_cfg.val_interval=2"]
    message = refused(
        capsys,
        train(trained, *others, flags=["--resume"]),
        "param_scheduler.1.T_max was 3, is 6",
        "optim_wrapper.optimizer.lr was 0.2, is 0.01",
        f"load_from={trained / 'epoch_3.pth'}",
    )
    assert "val_interval" not in message


@pytest.mark.slow
@pytest.mark.contract
def test_resume_goes_on_from_the_work_folder_whatever_the_weights_were_at_first(trained, tmp_path):
    first = [f"load_from={trained / 'epoch_3.pth'}", "train_cfg.max_epochs=2"]
    assert train(tmp_path / "run", *first) == 0
    assert train(tmp_path / "run", first[0], flags=["--resume"]) == 0
    assert "resumed epoch: 2, iter: 20" in "".join(file.read_text() for file in (tmp_path / "run").glob("*/*.log"))
    # Nothing there yet: the weights are where it begins.
    assert train(tmp_path / "new", first[0], "train_cfg.max_epochs=1", flags=["--resume"]) == 0
    assert torch.load(tmp_path / "new/epoch_1.pth", weights_only=False)["meta"]["epoch"] == 1


def test_a_work_folder_may_be_moved_and_copied(trained, tmp_path):
    assert (trained / "last_checkpoint").read_text() == str(trained / "epoch_3.pth")
    shutil.copytree(trained, tmp_path / "copy")
    assert latest_checkpoint(tmp_path / "copy") == str(tmp_path / "copy/epoch_3.pth")
    assert latest_checkpoint(trained) == str(trained / "epoch_3.pth")
    assert latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("form", ["model", "bare"])
def test_weights_may_be_packed_in_every_usual_way(form, trained, tmp_path):
    weights = torch.load(trained / "epoch_3.pth", weights_only=False)["state_dict"]
    torch.save({"model": weights} if form == "model" else weights, tmp_path / "packed.pth")
    torch.save({"state_dict": weights}, tmp_path / "plain.pth")
    assert measure(tmp_path / "t", tmp_path / "packed.pth", flags=["--out", "a.json"]) == 0
    assert measure(tmp_path / "t", tmp_path / "plain.pth", flags=["--out", "b.json"]) == 0
    assert Path("a.json").read_text() == Path("b.json").read_text()


def test_figures_get_their_folder_before_anything_is_measured(trained, tmp_path, capsys):
    assert measure(tmp_path / "t", trained / "epoch_3.pth", flags=["--out", "new/deep/a.json"]) == 0
    assert "accuracy/top1" in json.loads(Path("new/deep/a.json").read_text())
    Path("file").touch()
    code = measure(tmp_path / "f", trained / "epoch_3.pth", flags=["--final", "--out", "file/a.json"])
    refused(capsys, code, "file/a.json can't be written")
    assert not (tmp_path / "f/test_openings.jsonl").exists()


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_malicious_checkpoint_is_refused_on_test_and_resume(trained, tmp_path, capsys):
    checkpoint = torch.load(trained / "epoch_3.pth", weights_only=False)
    checkpoint["extra"] = Trap(str(tmp_path / "sprung"))
    torch.save(checkpoint, tmp_path / "trap.pth")
    refused(capsys, measure(tmp_path / "t", tmp_path / "trap.pth"), "trap.pth", "mkdir")
    refused(capsys, train(tmp_path / "r", flags=["--resume", str(tmp_path / "trap.pth")]), "trap.pth", "mkdir")
    (tmp_path / "run").mkdir()
    torch.save(checkpoint, tmp_path / "run/epoch_3.pth")
    (tmp_path / "run/last_checkpoint").write_text(str(tmp_path / "run/epoch_3.pth"))
    refused(capsys, train(tmp_path / "run", flags=["--resume"]), "epoch_3.pth", "mkdir")
    refused(capsys, train(tmp_path / "l", f"load_from={tmp_path / 'trap.pth'}"), "trap.pth", "mkdir")
    assert not (tmp_path / "sprung").exists()


def test_checkpoint_of_another_network_is_refused_by_its_keys(trained, tmp_path, capsys):
    code = measure(tmp_path / "t", trained / "epoch_3.pth", "model.arch=gemnet_b_cifar")
    refused(capsys, code, "another network", "network.stages")
    code = train(tmp_path / "r", "model.arch=gemnet_b_cifar", flags=["--resume", str(trained / "epoch_3.pth")])
    refused(capsys, code, "another network", "network.stages")


def test_weights_to_begin_with_are_those_of_the_genome_whatever_their_classes(trained, tmp_path, capfd):
    genome = Genome.load(REPOSITORY / "gemnet/genomes/gemnet_a_cifar.json")
    genome.replace(activation="relu" if genome.activation != "relu" else "hswish").save(tmp_path / "other.json")
    begin = [f"load_from={trained / 'epoch_3.pth'}", "train_cfg.max_epochs=1"]
    options = ["model.arch=None", f"model.genome={tmp_path / 'other.json'}"]
    refused(capfd, train(tmp_path / "r", *options, *begin), f"trained with genome {genome.fingerprint}")
    checkpoint = torch.load(trained / "epoch_3.pth", weights_only=False)
    state = checkpoint["state_dict"]
    count = len(state)
    for key in ("network.classifier.weight", "network.classifier.bias"):
        state[key] = state[key][:7]
    torch.save(checkpoint, tmp_path / "seven.pth")
    assert train(tmp_path / "seven", f"load_from={tmp_path / 'seven.pth'}", "train_cfg.max_epochs=1") == 0
    said = capfd.readouterr().out
    assert f"load_from: {count - 2} of the network's {count} weights are taken; others stay as they are: " in said
    assert "network.classifier.bias ((7,) there, (10,) here)" in said
    assert "size mismatch" not in said
    (log,) = (tmp_path / "seven").glob("*/*.log")
    assert "size mismatch for network.classifier.weight" in log.read_text()


def test_missing_and_damaged_checkpoints_are_named(trained, tmp_path, capsys):
    refused(capsys, measure(tmp_path / "t", "nowhere.pth"), "nowhere.pth", "no such file")
    Path("cut.pth").write_bytes((trained / "epoch_3.pth").read_bytes()[:20_000])
    refused(capsys, measure(tmp_path / "t", "cut.pth"), "cut.pth")
    torch.save({"state_dict": torch.load(trained / "epoch_3.pth", weights_only=False)["state_dict"]}, "bare.pth")
    refused(capsys, train(tmp_path / "r", flags=["--resume", "bare.pth"]), "weights only")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("train_cfg.max_epoch=3", ["train_cfg.max_epoch", "'train_cfg.max_epochs'"]),
        ("optim_wraper.type=OptimWrapper", ["optim_wraper", "'optim_wrapper'"]),
        ("optim_wrapper.optimizer.nestrov=True", ["nestrov", "'optim_wrapper.optimizer.nesterov'"]),
        ("model.arhc=gemnet_b", ["arhc", "'model.arch'"]),
        ("optim_wrapper.optimizer.betas=0.9", ["SGD", "betas"]),
        ("param_scheduler.1.min=0", ["CosineAnnealing", "min"]),
        ("model.type=gemnet.ImageClasifier", ["ImageClasifier", "registry"]),
        ("model.arch=gemnet_z_cifar", ["gemnet_z_cifar", "Did you mean"]),
        ("model.num_classes=7", ["num_classes is 7", "10"]),
        ("train_dataloader.dataset.source=cifar100", ["cifar100", "Did you mean 'cifar10'"]),
        ("train_dataloader.dataset.source=./nowhere", ["nowhere", "no image folder"]),
        ("train_dataloader.dataset.split=trian", ["trian", "'train'"]),
        ("train_dataloader.batch_size=0", ["train_dataloader.batch_size is a whole number from 1, got 0"]),
        ("val_dataloader.num_workers=-1", ["val_dataloader.num_workers is a whole number from 0, got -1"]),
        ("train_cfg.max_epochs=0", ["train_cfg.max_epochs is a whole number from 1, got 0"]),
        ("train_cfg.max_epochs=1.5", ["train_cfg.max_epochs is a whole number from 1, got 1.5"]),
        ("optim_wrapper.optimizer.lr=abc", ["optim_wrapper.optimizer.lr is a number from 0, got 'abc'"]),
        ("optim_wrapper.optimizer.lr=-1", ["optim_wrapper.optimizer.lr is a number from 0, got -1"]),
        ("val_dataloader.dataset.resolution=-5", ["'network' or a number of pixels from 1 to 4096, got -5"]),
    ],
)
def test_wrong_config_value_is_named_with_the_right_one(option, words, tmp_path, capsys):
    refused(capsys, train(tmp_path / "run", option), *words)
    assert not list(Path(tmp_path / "run").glob("*.pth"))


@pytest.mark.parametrize("name", ["vis_cfg", "data_root", "norm_cfg", "max_epochs", "test_pipeline", "resume_from"])
def test_names_that_configs_often_hold_are_left_alone(name, tmp_path):
    (tmp_path / "c.py").write_text(f"_base_ = {CONFIG!r}\n{name} = 1\n")
    assert load_runner_config(tmp_path / "c.py", {name: 2, "model.neck": None})[name] == 2


def test_unknown_config_names_the_nearest(capsys):
    refused(capsys, train_command.main(["gemnet_b_cifar_cifar"]), "'gemnet_b_cifar_cifar10'")


def test_launchers_and_amp_say_what_they_need(tmp_path, capsys, monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    refused(capsys, train(tmp_path / "a", flags=["--launcher", "pytorch"]), "torchrun")
    refused(capsys, train(tmp_path / "b", flags=["--launcher", "slurm"]), "srun")
    if not torch.cuda.is_available():
        refused(capsys, train(tmp_path / "c", flags=["--amp"]), "--amp needs a GPU")


def test_auto_scale_lr_scales_once(tmp_path):
    code = train(tmp_path / "run", "train_cfg.max_epochs=1", flags=["--auto-scale-lr"])
    assert code == 0
    optimizer = torch.load(tmp_path / "run/epoch_1.pth", weights_only=False)["optimizer"]
    assert optimizer["param_groups"][0]["initial_lr"] == pytest.approx(0.2 * 32 / 128)


def test_norms_and_biases_do_not_decay(trained):
    state = torch.load(trained / "epoch_3.pth", weights_only=False)
    names = list(state["state_dict"])
    groups = state["optimizer"]["param_groups"]
    parameters = [key for key in names if not re.search(r"running_|num_batches", key)]
    assert len(groups) == len(parameters)
    for name, group in zip(parameters, groups, strict=True):
        kernel = state["state_dict"][name].ndim > 1
        assert (group["weight_decay"] > 0) == kernel, name


def test_options_that_would_change_nothing_are_refused(capsys, tmp_path):
    assert train(tmp_path / "run", "learning_rate=0.05") == 2
    assert "no variable of this name" in capsys.readouterr().err
    config = load_runner_config(find_runner_config(CONFIG), {"lr": 0.05, "batch_size": 64})
    assert config.optim_wrapper.optimizer.lr == 0.05
    assert config.train_dataloader.batch_size == 64


def test_our_configs_are_found_wherever_the_package_lies(tmp_path, monkeypatch):
    folder = tmp_path / "search" / "comparison" / "configs"
    shutil.copytree(REPOSITORY / "configs", folder)
    monkeypatch.setattr(runner_config_module, "config_folder", lambda: folder)
    ours = folder / "classification/finetune.py"
    for name in ("finetune", "finetune.py", "classification/finetune", "configs/classification/finetune.py"):
        assert find_runner_config(name) == ours
    for name in ("mine/finetune.py", "./mine/finetune", str(tmp_path / "finetune.py")):  # files that are not there
        with pytest.raises(GemnetError, match="neither a file nor one of ours"):
            find_runner_config(name)
    with pytest.raises(GemnetError, match="There is no config"):
        find_runner_config("controls_cifar10")  # a comparison's


@pytest.mark.slow
@pytest.mark.contract
def test_tool_ends_without_traceback_from_the_shell(tmp_path):
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools/train.py"), CONFIG, "--cfg-options", "train_cfg.max_epoch=3"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert run.returncode == 2
    assert "Did you mean 'train_cfg.max_epochs'" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    command += [str(REPOSITORY / "tools/train.py"), CONFIG, "--work-dir", "run", "--launcher", "pytorch"]
    run = subprocess.run([*command, "--cfg-options", *TINY], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    # 324 images, 32 a process: five steps an epoch instead of ten
    assert "Epoch(train) [3][5/5]" in log
    assert (tmp_path / "run/epoch_3.pth").is_file()
