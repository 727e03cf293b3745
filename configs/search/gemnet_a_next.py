"""A search for time that begins with gemnet_a: the best network that takes no longer, on Imagenette.

The space is gemnet_a_fast.py's with three more layouts, and the search begins with gemnet_a's cell in every layout.
Candidates see images of 64x64, .44 of the pixels of 96x96; costs are those at 96x96. A candidate takes about a minute
of a core. What it found is in docs/gemnet_search.md.

    python tools/benchmark.py latency gemnet_a --size 96
    python tools/search.py configs/search/gemnet_a_next.py --max-latency MS --work-dir work_dirs/gemnet_a_next

MS is a little more than what the first command says, since estimates err.
"""

_base_ = "./gemnet_a_fast.py"

space = dict(
    layouts=dict(
        steep=dict(stage_widths=[32, 64, 128, 256], stage_depths=[1, 2, 3, 1]),
        gentle=dict(stage_widths=[32, 64, 96, 144], stage_depths=[1, 3, 5, 2]),
        short=dict(stage_widths=[32, 80, 144, 256], stage_depths=[1, 1, 3, 2]),
    )
)
strategy = dict(initial=16)
fidelity = dict(epochs=4, resolution=64)

search = dict(
    evaluations=64,
    batch=6,
    ahead=3,
    seed=0,
    first=[
        dict(
            cell=dict(ops=["max_pool_3x3", window], edges=[[0, 1], [0, 2], [1, 2], [2, 3]]),
            macro=dict(
                inner_ratio=2,
                se_ratio=0.0,
                activation="relu",
                residual="identity",
                expand="conv1x1_bn_act",
                layout=layout,
            ),
        )
        for window, layout in [
            *(
                ("dw3x3_bn", layout)
                for layout in (
                    *("wide", "late", "even", "steep", "gentle", "short"),
                    *("reductions", "patches", "residual", "convolution"),
                )
            ),
            ("dw5x5_bn", "wide"),
        ]
    ],
)
confirm = dict(top=4, seeds=1, epochs=8)
