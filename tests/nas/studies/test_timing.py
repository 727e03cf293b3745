"""Peers fitted by time: each network is measured once, and a comparison that goes on has the peers it began with."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from gemnet.classics import mobilenetv2
from gemnet.errors import GemnetError
from gemnet.sources import GenomeSource, Images, Network, Source, count_macs, describe
from gemnet.sources import build as build_network
from gemnet.strict import ConfigError
from nas.studies.comparison.config import read_comparison
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.peers import (
    TIMM_FAMILIES,
    Target,
    block_network,
    fitted,
    mobilenet,
    nasbench201_network,
    repvgg_network,
    resnet_network,
    timm_family,
)
from nas.studies.comparison.timing import FitOptions, RelativeTimes, standard_error

IMAGES = Images(32, 3, 10)


@pytest.fixture
def reference() -> Network:
    return describe("reference", GenomeSource(mobilenetv2(0.25, 96)), IMAGES)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measures MACs in place of time; the list says of what."""
    done: list[str] = []

    def measure(watch: RelativeTimes, network: Network) -> float:
        done.append(network.fingerprint)
        return network.macs / watch.reference.macs

    monkeypatch.setattr(RelativeTimes, "_measure", measure)
    return done


def _family(family: str, target: Target) -> Source:
    return timm_family(family, IMAGES, target)


@pytest.mark.parametrize("family", TIMM_FAMILIES)
def test_at_its_own_width_a_family_is_timms(family: str) -> None:
    registered = timm.create_model({"lcnet": "lcnet_100"}.get(family, family), num_classes=IMAGES.classes)
    whole = timm_family(family, IMAGES, Target(0), 1.0).build(IMAGES)
    whole.load_state_dict(registered.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(images), registered.eval()(images))


@pytest.mark.parametrize(
    "build",
    [
        *(partial(_family, family) for family in TIMM_FAMILIES),
        lambda target: resnet_network(IMAGES, target),
        lambda target: repvgg_network(IMAGES, target, depths=(1, 1, 2, 1)),
    ],
)
def test_a_peer_is_the_narrowest_that_reaches_its_target(build) -> None:
    found = build(Target(4e6))
    assert 4e6 <= count_macs(found, IMAGES) < 6e6
    assert found == build(Target(4e6))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({8: 0.9, 16: 1.1, 24: 1.3, 32: 2.0}, 16),
        ({8: 0.9, 16: 1.2, 24: 1.15, 32: 2.0}, 24),  # wider, and quicker
        ({8: 0.9, 16: 1.01, 24: 1.06, 32: 1.04}, 16),  # 24 is over the slack, and 32 has too many MACs to be looked at
        ({8: 0.9, 16: 1.01, 24: 1.05, 32: 1.04}, 24),
        ({8: 1.5, 16: 1.4, 24: 1.6}, 16),
        ({8: 2.0, 16: 2.2, 24: 2.6}, 8),
    ],
)
def test_by_time_a_peer_is_the_widest_that_takes_no_longer(times: dict[int, float], expected: int) -> None:
    def at(width: int) -> GenomeSource:
        return GenomeSource(mobilenetv2(width / 32, 32))

    known = {at(width).genome.fingerprint: time for width, time in times.items()}

    def time(source: GenomeSource, _images: Images) -> float:
        return known.get(source.genome.fingerprint, 9.0)

    target = Target(1.0, time, "of the reference's time", measured=True)
    assert fitted(at, IMAGES, target, "a peer", target.step) == at(expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda target: mobilenet("mobilenetv2", IMAGES, target),
        lambda target: resnet_network(IMAGES, target),
        lambda target: nasbench201_network(IMAGES, target, cells=1),
        lambda target: repvgg_network(IMAGES, target, depths=(1, 1, 2, 1)),
        lambda target: block_network(IMAGES, target, mobilenetv2(0.25, 96)),
    ],
)
def test_by_time_a_peer_has_widths_that_processors_like(build) -> None:
    model = build_network(build(Target(4e6, measured=True)), IMAGES, seed=0)
    widths = {conv.out_channels for conv in model.modules() if isinstance(conv, nn.Conv2d)}
    assert widths
    assert not {width for width in widths if width % 8}


def test_a_ratio_is_as_sure_as_its_turns_agree() -> None:
    rng = np.random.default_rng(0)
    ratios = rng.normal(2.0, 0.1, (400, 100))
    spread = float(np.median(ratios, axis=1).std()) / 2.0
    assert np.mean([standard_error(row) for row in ratios]) == pytest.approx(spread, rel=0.15)


def settings(**changes: object) -> dict:
    return {
        "data": {"source": "digits"},
        "networks": [{"type": "timm", "arch": "lcnet_050"}, {"type": "lcnet", "time_ratio": 2.0}],
        "reference": "lcnet_050",
        "epochs": 1,
        "lrs": [0.1],
        "fit": {"by": "time"},
    } | changes


def test_a_comparison_that_goes_on_has_the_peers_it_began_with(tmp_path: Path, measured: list[str]) -> None:
    times = tmp_path / "times.json"
    said: list[str] = []
    first = networks_compared(read_comparison(settings()), IMAGES, times, said.append)
    assert len(said) == len(measured) > 0
    assert all(re.fullmatch(r"\S+ of [\d.]+ M MACs: [\d.]+ of \S+'s time", line) for line in said), said
    assert [2 <= entry.forms[0].time < 2.3 for entry in first] == [False, True]
    assert first[0].forms[0].time == 1
    count = len(measured)
    assert len(set(measured)) == count
    again = networks_compared(read_comparison(settings()), IMAGES, times, said.append)
    assert len(said) == count
    assert [entry.forms[0].fingerprint for entry in again] == [entry.forms[0].fingerprint for entry in first]
    assert len(measured) == count
    networks_compared(read_comparison(settings(fit={"by": "time", "batch_sizes": [1, 8]})), IMAGES, times)
    assert len(measured) > count, "other settings are other times"
    count = len(measured)
    for batch_sizes in ([1], [1, 8]):
        networks_compared(read_comparison(settings(fit={"by": "time", "batch_sizes": batch_sizes})), IMAGES, times)
    assert len(measured) == count, "and are kept beside each other"


def test_times_of_before_several_settings_were_kept_are_read(
    tmp_path: Path, measured: list[str], reference: Network
) -> None:
    times, other = tmp_path / "times.json", describe("other", GenomeSource(mobilenetv2(0.5, 96)), IMAGES)
    ratio = RelativeTimes(reference, IMAGES, FitOptions("time"), times).of(other)
    (alone,) = json.loads(times.read_text())["times"]
    times.write_text(json.dumps(alone))
    assert RelativeTimes(reference, IMAGES, FitOptions("time"), times).of(other) == ratio
    assert measured == [other.fingerprint]


def test_a_ratio_is_of_what_peers_are_fitted_by(measured: list[str]) -> None:
    with pytest.raises(ConfigError, match="macs_ratio"):
        networks_compared(
            read_comparison(settings(networks=[settings()["networks"][0], {"type": "lcnet", "macs_ratio": 2.0}])),
            IMAGES,
        )
    with pytest.raises(ConfigError, match="time_ratio"):
        networks_compared(read_comparison(settings(fit={})), IMAGES)
    with pytest.raises(ConfigError, match="'macs' or 'time'"):
        read_comparison(settings(fit={"by": "miles"}))


def test_a_damaged_file_of_times_is_named(tmp_path: Path, reference: Network) -> None:
    file = tmp_path / "times.json"
    file.write_text("{")
    with pytest.raises(GemnetError, match=r"times\.json can't be read"):
        RelativeTimes(reference, IMAGES, FitOptions("time"), file)


@pytest.mark.slow
@pytest.mark.contract
def test_times_are_measured_in_onnxruntime_and_written_down(tmp_path: Path, reference: Network) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]' brings onnxruntime")
    pytest.importorskip("onnxscript", reason="pip install 'gemnet[export]' brings onnxscript")
    file = tmp_path / "times.json"
    watch = RelativeTimes(reference, IMAGES, FitOptions("time", (1, 2)), file)
    other = describe("other", timm_family("lcnet", IMAGES, Target(0), 0.5), IMAGES)
    ratio = watch.of(other)
    assert 0 < ratio < 100
    assert (
        json.loads(file.read_text())["times"][0]["ratios"][other.fingerprint]
        == ratio
        == watch.cost("it")(other.source, IMAGES)
    )
