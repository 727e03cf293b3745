import numpy as np
import pytest

from gemnet import macs
from gemnet.cell_graph import CellGraph
from gemnet.errors import GemnetError
from gemnet.network import GEMNet
from nas.spaces.base import Candidate, SearchSpace, SpaceError
from nas.spaces.dag import without_detours
from nas.spaces.gemnet import MACRO_CHOICES, GEMNetSpace

MACRO = (("width", 1.0), ("inner_ratio", 3), ("se_ratio", 0.0), ("activation", "relu"))
ONE_NODE = CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)}))


@pytest.fixture(scope="module")
def space() -> GEMNetSpace:
    return GEMNetSpace()


def test_samples_and_mutants_pass_the_check(space: GEMNetSpace) -> None:
    rng = np.random.default_rng(0)
    batch = space.sample(300, rng)
    for edits in (0, 1, 5):
        mutants = space.mutate(batch, rng, edits)
        assert len(mutants) == len(batch)
        for row in range(0, len(mutants), 10):
            space.check(space.unpack(mutants, row))


def test_no_sample_mutant_or_neighbour_takes_a_detour(space: GEMNetSpace) -> None:
    rng = np.random.default_rng(4)
    batch = space.sample(300, rng)
    around = [space.neighbours(space.unpack(batch, row)) for row in range(3)]
    for some in (batch, space.mutate(batch, rng, 3), *around):
        direct = without_detours(some.graphs, "identity")
        np.testing.assert_array_equal(direct.successors, some.graphs.successors)


def test_every_mutation_of_one_edit_changes_the_candidate_or_nothing_can(space: GEMNetSpace) -> None:
    rng = np.random.default_rng(0)
    batch = space.sample(300, rng)
    mutants = space.mutate(batch, rng)
    changed = [space.unpack(batch, row) != space.unpack(mutants, row) for row in range(len(batch))]
    assert np.mean(changed) > 0.95


def test_batch_costs_equal_the_built_network(space: GEMNetSpace) -> None:
    batch = space.sample(12, np.random.default_rng(1))
    expected_macs, expected_params = space.macs(batch), space.params(batch)
    for row in range(len(batch)):
        genome = space.genome(space.unpack(batch, row))
        network = GEMNet(genome)
        assert sum(p.numel() for p in network.parameters()) == expected_params[row]
        assert macs.macs(genome) == expected_macs[row]


def test_pack_and_unpack_are_inverse(space: GEMNetSpace) -> None:
    batch = space.sample(50, np.random.default_rng(2))
    candidates = [space.unpack(batch, row) for row in range(len(batch))]
    again = space.pack(candidates)
    assert [space.unpack(again, row) for row in range(len(again))] == candidates
    assert [Candidate.from_json(c.to_json()) for c in candidates] == candidates


def test_neighbours_are_valid_and_one_step_away(space: GEMNetSpace) -> None:
    candidate = space.unpack(space.sample(9, np.random.default_rng(3)), 8)
    batch = space.neighbours(candidate)
    for row in range(len(batch)):
        neighbour = space.unpack(batch, row)
        space.check(neighbour)
        assert neighbour != candidate
    assert len(batch) > len(candidate.cell.ops)


def test_mobilenetv2_block_is_a_member(space: GEMNetSpace) -> None:
    macro = (("width", 1.0), ("inner_ratio", 6), ("se_ratio", 0.0), ("activation", "relu"))
    space.check(Candidate(ONE_NODE, macro))


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (Candidate(CellGraph((), frozenset({(0, 1)})), MACRO), "1 to 4 inner nodes, got 0"),
        (Candidate(CellGraph(("identity",) * 5, frozenset({(0, 1)})), MACRO), "1 to 4 inner nodes, got 5"),
        (Candidate(CellGraph(("identity",), frozenset({(0, 1)})), MACRO), "No path"),
        (
            Candidate(CellGraph(("identity", "dw3x3_bn"), frozenset({(0, 1), (1, 3), (0, 2)})), MACRO),
            r"Node 2 \(dw3x3_bn\) lies on no path",
        ),
        (Candidate(CellGraph(("dw3x3_bn_cat",), ONE_NODE.edges), MACRO), "Did you mean 'dw3x3_bn_act'"),
        (Candidate(ONE_NODE, MACRO[:-1]), "'activation' is missing"),
        (Candidate(ONE_NODE, (*MACRO[:-1], ("activation", "swish"))), "got 'swish'"),
        (Candidate(ONE_NODE, (*MACRO, ("widht", 1.0))), "Did you mean 'width'"),
    ],
)
def test_candidates_that_break_a_rule_are_refused(candidate: Candidate, message: str) -> None:
    with pytest.raises(GemnetError, match=message):
        GEMNetSpace(max_nodes=4).check(candidate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nodes": 31}, "1 to 30, got 31"),
        ({"vocabulary": []}, "at least one"),
        ({"vocabulary": ["identity", "none"]}, "'none'"),
        ({"vocabulary": ["conv3x3_bn_relux"]}, "conv3x3_bn_relu"),
        ({"choices": {"widht": [1.0]}}, "Did you mean 'width'"),
        ({"choices": {"width": []}}, "at least one"),
        ({"choices": {"width": [1000.0]}}, "width"),
        ({"stage_widths": [16]}, "stage_widths 1, stage_depths 3, stage_strides 3"),
        ({"stage_widths": [8] * 4, "stage_depths": [1] * 4}, "give all three"),
        ({"stage_strides": [1, 2, 3]}, "stride"),
        ({"width_step": 0}, "width_step"),
        ({"form": "cifer"}, "form"),
    ],
)
def test_contradictory_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(GemnetError, match=message):
        GEMNetSpace(**options)


def test_settings_reach_the_network() -> None:
    space = GEMNetSpace(
        input_size=16,
        num_classes=3,
        in_chans=1,
        stage_widths=(8, 16, 24),
        stage_depths=(1, 1, 1),
        choices={"width": [1.0]},
    )
    assert dict(space.macro_choices)["inner_ratio"] == MACRO_CHOICES["inner_ratio"]
    genome = space.genome(space.unpack(space.sample(1, np.random.default_rng(0)), 0), name="n", origin="o")
    assert (genome.input_size, genome.num_classes, genome.name, genome.origin) == (16, 3, "n", "o")
    assert [stage.width for stage in genome.stages] == [8, 16, 24]
    assert [stage.depth for stage in genome.stages] == [1, 1, 1]


def test_the_small_form_can_have_other_stages() -> None:
    space = GEMNetSpace(
        stage_widths=(12, 20, 40, 80),
        stage_depths=(1, 1, 2, 3),
        stage_strides=(1, 2, 2, 2),
        stem_width=12,
        head_width=256,
        width_step=4,
        choices={"width": [0.875]},
    )
    batch = space.sample(3, np.random.default_rng(0))
    for number, counted in enumerate(space.macs(batch)):
        genome = space.genome(space.unpack(batch, number))
        assert [stage.width for stage in genome.stages] == [12, 16, 36, 72]  # multiples of four
        assert [level.reduction for level in genome.levels] == [1, 2, 4, 8]
        assert (genome.stem[0].width, genome.head[0].width) == (12, 256)
        assert macs.macs(genome) == counted


class TestLayouts:
    """Networks around the cell as a choice."""

    LAYOUTS = {  # noqa: RUF012  a constant
        "shallow": {"stage_depths": (1, 1, 1), "head_width": 320},
        "deep": {
            "stem_width": 12,
            "stage_widths": (12, 16, 32, 64),
            "stage_depths": (1, 1, 2, 3),
            "stage_strides": (1, 2, 2, 2),
        },
    }

    def test_layout_and_residual_reach_network_and_costs(self) -> None:
        space = GEMNetSpace(layouts=self.LAYOUTS, choices={"residual": ["identity", "pool_conv1x1_bn"]})
        batch = space.sample(30, np.random.default_rng(0))
        seen = set()
        for row in range(len(batch)):
            candidate = space.unpack(batch, row)
            genome, macro = space.genome(candidate), dict(candidate.macro)
            seen.add((macro["layout"], macro["residual"]))
            assert len(genome.stages) == {"shallow": 3, "deep": 4}[macro["layout"]]
            assert genome.head[0].width == {"shallow": 320, "deep": 160}[macro["layout"]]
            assert genome.cells["cell"].residual == macro["residual"]
            assert macs.macs(genome) == space.macs(batch)[row]
            assert Candidate.from_json(candidate.to_json()) == candidate
        assert len(seen) == 4

    def test_layouts_are_reached_by_mutation(self) -> None:
        space = GEMNetSpace(layouts=self.LAYOUTS)
        batch = space.mutate(space.sample(300, np.random.default_rng(0)).take([0] * 300), np.random.default_rng(1))
        assert {dict(space.unpack(batch, row).macro)["layout"] for row in range(300)} == {"shallow", "deep"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layouts": {"wide": {"stage_width": [8]}}}, "Did you mean 'stage_widths'"),
            ({"layouts": {"wide": {"stage_widths": [8]}}}, "differ in length"),
            ({"layouts": {"wide": 3}}, "dict"),
            ({"choices": {"layout": ["wide"]}}, "layouts"),
            ({"choices": {"residual": ["identiy"]}}, "identity"),
        ],
    )
    def test_contradictory_ones_are_refused(self, options: dict, message: str) -> None:
        with pytest.raises(GemnetError, match=message):
            GEMNetSpace(**options)


FAST = {
    "stem": [{"op": "conv4x4_bn_act", "width": 16, "stride": 4}],
    "stage_strides": [1, 2, 2, 2],
    "stage_cells": ["conv3x3", "basic", "cell", "mine"],
    "stage_reductions": [None, None, "extra3", None],
    "head_width": 0,
}
MINE = {"graph": {"ops": ["dw7x7_bn_act"], "edges": [[0, 1], [1, 2]]}, "residual": "pool_conv1x1_bn"}


def test_stages_may_have_hand_made_cells_and_reductions_and_costs_stay_exact() -> None:
    space = GEMNetSpace(
        "imagenet",
        input_size=64,
        choices={"expand": ["conv1x1_bn_act", "dw5x5_bn_conv1x1_bn_act", None], "final_activation": [None, "act"]},
        layouts={"plain": {}, "fast": FAST},
        cells={"mine": MINE},
    )
    batch = space.sample(40, np.random.default_rng(0))
    costs = space.macs(batch)
    for index in range(len(batch)):
        candidate = space.unpack(batch, index)
        genome = space.genome(candidate)
        assert macs.macs(genome) == costs[index]
        made = dict(candidate.macro)
        if made["layout"] == "fast":
            assert [stage.cell for stage in genome.stages] == FAST["stage_cells"]
            assert genome.stem[0].op == "conv4x4_bn_act"
            assert genome.stages[2].downsample == "extra3"
        assert genome.cells["cell"].expand == made["expand"]


def test_what_an_evaluation_depends_on_has_the_hand_made_cells_but_is_as_before_without_them() -> None:
    assert '"cells"' not in GEMNetSpace("imagenet").surroundings
    assert "dw7x7_bn_act" in GEMNetSpace("imagenet", cells={"mine": MINE}, layouts={"fast": FAST}).surroundings


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"stage_cells": ["basik", "cell", "cell", "cell"]}, "Did you mean 'basic'"),
        ({"stage_cells": ["cell"]}, "differ in length"),
        ({"stem": [{"op": "conv3x3", "wide": 3}]}, "width"),
        ({"stem": [{"op": "dw3x3", "width": 3}]}, "dense convolution"),
    ],
)
def test_a_layout_that_makes_no_network_is_refused(layout: dict, message: str) -> None:
    with pytest.raises(GemnetError, match=message):
        GEMNetSpace("imagenet", layouts={"bad": layout})


def test_every_cell_of_a_space_that_needs_a_convolution_has_one() -> None:
    space, rng = GEMNetSpace(needs_convolution=True, max_nodes=4), np.random.default_rng(0)
    needed = {"dw3x3_bn_act", "dw5x5_bn_act", "dw3x3_bn", "conv3x3_bn_act"}
    batch = space.sample(500, rng)
    around = space.neighbours(space.unpack(batch, 0))
    for some in (batch, space.mutate(batch, rng, 3), around):
        for row in range(len(some)):
            candidate = space.unpack(some, row)
            space.check(candidate)
            assert needed & set(candidate.cell.ops)
    pools = Candidate(CellGraph(("max_pool_3x3",), frozenset({(0, 1), (1, 2)})), MACRO)
    GEMNetSpace().check(pools)
    with pytest.raises(SpaceError, match="larger than 1x1"):
        space.check(pools)
    with pytest.raises(SpaceError, match="none of"):
        GEMNetSpace(needs_convolution=True, vocabulary=["conv1x1_bn_act", "max_pool_3x3"])


def test_cells_that_have_their_convolution_are_sampled_as_without_the_rule() -> None:
    free, strict = (GEMNetSpace(needs_convolution=rule).sample(300, np.random.default_rng(1)) for rule in (False, True))
    same = [free.graphs.graph(row) == strict.graphs.graph(row) for row in range(300)]
    assert 0.7 < np.mean(same) < 1


def test_what_predictors_go_by_are_macs_and_parameters() -> None:
    space = GEMNetSpace(form="cifar", size="a", max_nodes=8)
    batch = space.sample(50, np.random.default_rng(0))
    np.testing.assert_array_equal(space.live_costs(batch), [space.macs(batch), space.params(batch)])
    np.testing.assert_array_equal(space.live_costs(batch), SearchSpace.live_costs(space, batch))
