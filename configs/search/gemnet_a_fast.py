"""A search for fast networks: the best that takes at most half of gemnet_a_202611's time, on Imagenette at 96x96.

MACs are no limit here, time is. What is fast on a processor was measured (docs/gemnet_search.md): widths in
multiples of 16, ReLU where maps are large, wide depthwise windows on small ones, few passes. So the space has hand-made
cells for early stages, windows up to 7x7 with and without activation, groups of 16, and depthwise windows before the
expansion; the search begins with the blocks of MobileNetV2, V4, ConvNeXt, PP-LCNet and ResNet, with gemnet_a_202611's
cell, and with what is left of it when it is made fast. gemnet_a is the best of these (docs/gemnet_search.md). A candidate takes two to four minutes of a core; stopped, the same command goes on.
Milliseconds are of a machine, so the limit comes with the command: half of what the first one says of gemnet_a_202611 there,
and somewhat more where estimates err (a candidate of `first` that is estimated beyond the limit is refused by name).

    python tools/benchmark.py latency gemnet_a_202611 --size 96
    python tools/search.py configs/search/gemnet_a_fast.py --max-latency MS --work-dir work_dirs/gemnet_a_fast
"""

space = dict(
    type='gemnet',
    form='imagenet',
    size='a',
    input_size=96,
    max_nodes=12,
    width_step=16,
    stem_width=16,
    stage_widths=[16, 48, 96, 160],
    head_width=640,
    vocabulary=[
        'dw3x3_bn_act',
        'dw5x5_bn_act',
        'dw7x7_bn_act',
        'dw3x3_bn',
        'dw5x5_bn',
        'dw7x7_bn',
        'conv1x1_bn_act',
        'conv3x3_bn_act',
        'conv3x3w16_bn_act',
        'conv3x3w16_bn',
        'avg_pool_3x3',
        'max_pool_3x3',
        'identity',
    ],
    layouts=dict(
        even=dict(),
        late=dict(stage_depths=[1, 2, 5, 4]),
        deep=dict(stage_depths=[2, 4, 6, 3]),
        wide=dict(stage_widths=[32, 64, 112, 192], stage_depths=[1, 2, 4, 2]),
        convolution=dict(
            stage_widths=[32, 64, 112, 192], stage_depths=[1, 3, 4, 3], stage_cells=['conv3x3', 'cell', 'cell', 'cell']
        ),
        residual=dict(
            stage_widths=[16, 32, 96, 192],
            stage_depths=[1, 2, 5, 3],
            stage_cells=['basic', 'basic', 'cell', 'cell'],
            stage_reductions=[None, None, 'extra3', 'extra3'],
        ),
        reductions=dict(stage_depths=[2, 3, 5, 3], stage_reductions=[None, 'inverted3_5', 'extra3', 'extra3']),
        patches=dict(
            stem=[dict(op='conv4x4_bn_act', width=32, stride=4)],
            stage_widths=[32, 64, 112, 192],
            stage_strides=[1, 2, 2, 2],
            stage_depths=[2, 3, 4, 2],
        ),
    ),
    choices=dict(
        width=[0.625, 0.75, 0.875, 1.0, 1.25, 1.5],
        inner_ratio=[1, 2, 3, 4],
        se_ratio=[0.0],
        residual=['identity', 'pool_conv1x1_bn'],
        expand=['conv1x1_bn_act', 'dw3x3_bn_conv1x1_bn_act', 'dw5x5_bn_conv1x1_bn_act'],
    ),
)
strategy = dict(type='nasgem', initial=24)
evaluator = dict(type='training')
data = dict(source='{{$GEMNET_DATA:data}}/imagenette96', dev_fraction=0.2, resolution=96)
recipe = dict(batch_size=64, lr=0.1)
fidelity = dict(epochs=4)

score = dict(target_macs=17e6, weight=0.0)
latency = dict(runtime='onnxruntime')

search = dict(
    evaluations=200,
    batch=8,
    ahead=4,
    seed=0,
    first=[
        dict(
            cell=dict(ops=ops, edges=edges),
            macro=dict(
                width=1.0,
                inner_ratio=ratio,
                se_ratio=0.0,
                activation=activation,
                residual=residual,
                expand=expand,
                layout=layout,
            ),
        )
        for ops, edges, layout, ratio, activation, residual, expand in [
            # gemnet_a_202611's cell: a mean of the input and its pools, two windows
            (
                ['avg_pool_3x3', 'max_pool_3x3', 'identity', 'identity', 'identity', 'identity', 'dw3x3_bn', 'dw3x3_bn'],
                [
                    *([0, node] for node in (1, 2, 3, 4, 7)),
                    *([1, 7], [2, 3], [3, 4], [3, 7], [4, 5], [4, 6], [4, 7], [5, 7], [6, 7], [7, 8], [8, 9]),
                ],
                'even',
                2,
                'hswish',
                'identity',
                'conv1x1_bn_act',
            ),
            # what is left of it: a mean of the input and its largest neighbours, one window
            *(
                (['max_pool_3x3', window], [[0, 1], [0, 2], [1, 2], [2, 3]], layout, 2, 'relu', 'identity', 'conv1x1_bn_act')
                for window, layout in [
                    ('dw3x3_bn', 'wide'),
                    ('dw3x3_bn', 'late'),
                    ('dw3x3_bn', 'even'),
                    ('dw5x5_bn', 'even'),
                ]
            ),
            # its two windows made one, or both, without the pools
            (['dw5x5_bn'], [[0, 1], [1, 2]], 'even', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn'], [[0, 1], [1, 2]], 'even', 2, 'hswish', 'identity', 'conv1x1_bn_act'),
            (['dw7x7_bn'], [[0, 1], [1, 2]], 'even', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn'], [[0, 1], [1, 2]], 'deep', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn'], [[0, 1], [1, 2]], 'even', 2, 'relu', 'pool_conv1x1_bn', 'conv1x1_bn_act'),
            (['dw3x3_bn', 'dw3x3_bn'], [[0, 1], [1, 2], [2, 3]], 'even', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (
                ['dw5x5_bn', 'avg_pool_3x3'],
                [[0, 1], [0, 2], [1, 3], [2, 3]],
                'even',
                2,
                'relu',
                'identity',
                'conv1x1_bn_act',
            ),
            (
                ['dw5x5_bn', 'max_pool_3x3'],
                [[0, 1], [0, 2], [1, 3], [2, 3]],
                'even',
                2,
                'relu',
                'identity',
                'conv1x1_bn_act',
            ),
            # MobileNetV2's and V4's blocks, ConvNeXt's, PP-LCNet's
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'even', 3, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'reductions', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'convolution', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'wide', 2, 'relu', 'identity', 'dw3x3_bn_conv1x1_bn_act'),
            (['identity'], [[0, 1], [1, 2]], 'patches', 2, 'relu', 'identity', 'dw5x5_bn_conv1x1_bn_act'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'late', 1, 'hswish', 'identity', 'conv1x1_bn_act'),
            # ResNet's early, grouped or depthwise windows late
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'residual', 2, 'relu', 'identity', 'conv1x1_bn_act'),
            (['conv3x3w16_bn_act'], [[0, 1], [1, 2]], 'residual', 1, 'relu', 'identity', 'conv1x1_bn_act'),
        ]
    ],
)
time_limit = 3600.0
confirm = dict(top=4, seeds=2, epochs=12)
