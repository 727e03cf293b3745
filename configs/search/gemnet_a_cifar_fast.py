"""A search for fast networks of 32x32 images: the best that takes at most two thirds of gemnet_a_cifar's time.

As in gemnet_a_fast.py time is the limit and MACs are none, so the space offers what a processor is fast at: widths in
multiples of 16, dense and grouped windows beside depthwise ones, ReLU, early stages of hand-made blocks. Candidates are
trained for two epochs of 16,000 images at their own size, about a minute of a core. The best three are trained again,
six epochs with a fresh seed, and these trainings choose.

Milliseconds are of a machine, so the limit comes with the command: two thirds of what the first one says.

    python tools/benchmark.py latency gemnet_a_cifar
    python tools/search.py configs/search/gemnet_a_cifar_fast.py --max-latency MS --work-dir work_dirs/cifar_fast
"""

space = dict(
    type='gemnet',
    form='cifar',
    size='a',
    max_nodes=12,
    width_step=16,
    stem_width=16,
    stage_widths=[16, 32, 64, 128],
    stage_depths=[1, 2, 3, 2],
    stage_strides=[1, 2, 2, 2],
    head_width=320,
    vocabulary=[
        'dw3x3_bn_act',
        'dw5x5_bn_act',
        'dw3x3_bn',
        'dw5x5_bn',
        'conv1x1_bn_act',
        'conv3x3_bn_act',
        'conv3x3_bn',
        'conv3x3w16_bn_act',
        'avg_pool_3x3',
        'max_pool_3x3',
        'identity',
    ],
    layouts=dict(
        four=dict(),
        late=dict(stage_depths=[1, 1, 3, 3]),
        wide=dict(stage_widths=[32, 48, 96, 160], stage_depths=[1, 1, 3, 2]),
        flat=dict(stage_widths=[16, 48, 96], stage_depths=[1, 3, 3], stage_strides=[1, 2, 2]),
        convolution=dict(stage_widths=[32, 48, 96, 160], stage_cells=['conv3x3', 'cell', 'cell', 'cell']),
        residual=dict(
            stage_widths=[16, 32, 64, 128],
            stage_depths=[1, 1, 3, 2],
            stage_cells=['basic', 'basic', 'cell', 'cell'],
        ),
        patches=dict(
            stem=[dict(op='conv2x2_bn_act', width=32, stride=2)],
            stage_widths=[32, 64, 128],
            stage_depths=[2, 3, 2],
            stage_strides=[1, 2, 2],
        ),
    ),
    choices=dict(
        width=[0.5, 0.75, 1.0, 1.25, 1.5, 2.0],
        inner_ratio=[1, 2, 3, 4],
        se_ratio=[0.0, 0.25],
        residual=['identity', 'pool_conv1x1_bn'],
    ),
)
strategy = dict(type='nasgem', initial=24)
evaluator = dict(type='training')
data = dict(source='cifar10', dev_fraction=0.2)
recipe = dict(batch_size=64, lr=0.2)
fidelity = dict(epochs=2, subset=0.4)

score = dict(target_macs=6e6, weight=0.0)
latency = dict(runtime='onnxruntime')

search = dict(
    evaluations=44,
    batch=8,
    ahead=4,
    seed=0,
    first=[
        dict(
            cell=dict(ops=ops, edges=edges),
            macro=dict(
                width=width, inner_ratio=ratio, se_ratio=0.0, activation='relu', residual=residual, layout=layout
            ),
        )
        for ops, edges, layout, width, ratio, residual in [
            # ResNet's block, dense and in groups
            (['conv3x3_bn_act'], [[0, 1], [1, 2]], 'patches', 0.75, 1, 'pool_conv1x1_bn'),
            (['conv3x3w16_bn_act'], [[0, 1], [1, 2]], 'residual', 0.75, 1, 'pool_conv1x1_bn'),
            # MobileNetV2's, its window wider
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 'four', 1.0, 2, 'pool_conv1x1_bn'),
            (['dw5x5_bn_act'], [[0, 1], [1, 2]], 'patches', 1.0, 2, 'pool_conv1x1_bn'),
            # gemnet_a's: a mean of the input and its largest neighbours, one window
            *(
                (['max_pool_3x3', 'dw3x3_bn'], [[0, 1], [0, 2], [1, 2], [2, 3]], layout, 1.0, 2, 'pool_conv1x1_bn')
                for layout in ('four', 'late', 'patches')
            ),
            # gemnet_a_cifar's: two windows in a row
            (['dw3x3_bn', 'dw3x3_bn_act'], [[0, 1], [0, 2], [1, 2], [2, 3]], 'late', 1.0, 2, 'pool_conv1x1_bn'),
        ]
    ],
)
time_limit = 1200.0
confirm = dict(top=3, seeds=1, epochs=6)
