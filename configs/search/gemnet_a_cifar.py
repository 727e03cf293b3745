"""The search behind gemnet_a_cifar: the best network of at most 5.9 million MACs for 32x32 images, on CIFAR-10.

Besides the cell and what surrounds it, the network around the cells is searched (`layout`), and whether a cell that
changes size has a residual, too. The search begins with hand-made cells. Candidates are trained at the images' own size:
at a smaller one, networks that shrink an image eight times rank worse than they are (docs/gemnet_search.md).

    python tools/search.py configs/search/gemnet_a_cifar.py --work-dir work_dirs/gemnet_a_cifar
    python tools/search.py configs/search/gemnet_a_cifar.py --work-dir work_dirs/random_a_cifar \
        --cfg-options strategy.type=random
"""

space = dict(
    type='gemnet',
    form='cifar',
    size='a',
    width_step=4,
    layouts=dict(
        flat=dict(),
        four=dict(stage_widths=[8, 16, 32, 64], stage_depths=[1, 2, 3, 2], stage_strides=[1, 2, 2, 2], head_width=320),
        late=dict(stage_widths=[8, 16, 40, 80], stage_depths=[1, 1, 3, 2], stage_strides=[1, 2, 2, 2], head_width=480),
        later=dict(stage_widths=[8, 16, 40, 96], stage_depths=[1, 1, 2, 3], stage_strides=[1, 2, 2, 2], head_width=640),
    ),
    choices=dict(
        width=[0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5, 1.75],
        inner_ratio=[1, 2, 3, 4],
        residual=['identity', 'pool_conv1x1_bn'],
    ),
)
strategy = dict(type='nasgem', initial=24)
evaluator = dict(type='training')
data = dict(source='cifar10', dev_fraction=0.2)
recipe = dict(batch_size=64, lr=0.2)
fidelity = dict(epochs=2, subset=0.5)

score = dict(target_macs=6e6, weight=1.0)
limits = dict(max_macs=5.9e6)

search = dict(
    evaluations=48,
    batch=8,
    ahead=4,
    seed=0,
    first=[
        dict(
            cell=dict(ops=ops, edges=edges),
            macro=dict(
                width=width, inner_ratio=ratio, se_ratio=se, activation='hswish', residual=residual, layout=layout
            ),
        )
        for ops, edges, layout, width, ratio, se, residual in [
            # MobileNetV2's block, larger kernels, two depthwise convolutions in a row or side by side, ResNet's block
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'flat', 1.0, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'four', 1.125, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'late', 1.0, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'later', 1.0, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'four', 1.0, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'late', 1.125, 2, 0.0, 'pool_conv1x1_bn'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'four', 1.0, 3, 0.25, 'identity'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'flat', 1.0, 3, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'four', 1.375, 2, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'late', 1.25, 2, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'later', 1.125, 2, 0.0, 'pool_conv1x1_bn'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'late', 1.25, 2, 0.0, 'identity'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'late', 1.25, 2, 0.25, 'pool_conv1x1_bn'),
            (['dw3x3_bn', 'dw3x3_bn_act'], [[0, 1], [1, 2], [2, 3]], 'late', 1.25, 2, 0.0, 'pool_conv1x1_bn'),
            (
                ['dw3x3_bn_act', 'dw5x5_bn_act'],
                [[0, 1], [0, 2], [1, 3], [2, 3]],
                'late',
                1.125,
                2,
                0.0,
                'pool_conv1x1_bn',
            ),
            (['conv3x3_bn_act'], [[0, 1], [1, 2]], 'flat', 0.875, 1, 0.0, 'pool_conv1x1_bn'),
        ]
    ],
)
time_limit = 1200.0
confirm = dict(top=3, epochs=6, seeds=1)
