"""Peers fitted by time: each network is measured once, and a comparison that goes on has the peers it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemnet.classics import mobilenetv2
from gemnet.errors import GemnetError
from gemnet.sources import GenomeSource, Images, Network, count_macs, describe
from gemnet.strict import ConfigError
from nas.studies.comparison.config import read_comparison
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.peers import Target, repvgg_network, resnet_network, timm_family
from nas.studies.comparison.timing import FitOptions, Stopwatch

IMAGES = Images(32, 3, 10)


@pytest.fixture
def reference() -> Network:
    return describe("reference", GenomeSource(mobilenetv2(0.25, 96)), IMAGES)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measures MACs in place of time; the list says of what."""
    done: list[str] = []

    def measure(watch: Stopwatch, network: Network) -> float:
        done.append(network.fingerprint)
        return network.macs / watch.reference.macs

    monkeypatch.setattr(Stopwatch, "_measure", measure)
    return done


@pytest.mark.parametrize(
    "build",
    [
        lambda target: timm_family("lcnet", IMAGES, target),
        lambda target: timm_family("mobilenetv4_conv_small", IMAGES, target),
        lambda target: resnet_network(IMAGES, target),
        lambda target: repvgg_network(IMAGES, target, depths=(1, 1, 2, 1)),
    ],
)
def test_a_peer_is_the_narrowest_that_reaches_its_target(build) -> None:
    found = build(Target(4e6))
    assert 4e6 <= count_macs(found, IMAGES) < 6e6
    assert found == build(Target(4e6))


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
    first = networks_compared(read_comparison(settings()), IMAGES, times)
    assert [2 <= entry.forms[0].time < 2.3 for entry in first] == [False, True]
    assert first[0].forms[0].time == 1
    count = len(measured)
    assert len(set(measured)) == count
    again = networks_compared(read_comparison(settings()), IMAGES, times)
    assert [entry.forms[0].fingerprint for entry in again] == [entry.forms[0].fingerprint for entry in first]
    assert len(measured) == count
    networks_compared(read_comparison(settings(fit={"by": "time", "batch_sizes": [1, 8]})), IMAGES, times)
    assert len(measured) > count, "other settings are other times"


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
        Stopwatch(reference, IMAGES, FitOptions("time"), file)


@pytest.mark.slow
@pytest.mark.contract
def test_times_are_measured_in_onnxruntime_and_written_down(tmp_path: Path, reference: Network) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]' brings onnxruntime")
    pytest.importorskip("onnxscript", reason="pip install 'gemnet[export]' brings onnxscript")
    file = tmp_path / "times.json"
    watch = Stopwatch(reference, IMAGES, FitOptions("time", (1, 2)), file)
    other = describe("other", timm_family("lcnet", IMAGES, Target(0), 0.5), IMAGES)
    ratio = watch.of(other)
    assert 0 < ratio < 100
    assert json.loads(file.read_text())["ratios"][other.fingerprint] == ratio == watch(other.source, IMAGES)
