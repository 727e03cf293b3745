"""Photos of 96 to 224 pixels: the most accurate network that takes at most some milliseconds an image.

    python tools/search.py configs/search/photos_fast.py --data my_photos --max-latency 2 --work-dir work_dirs/fast

my_photos/train/<class>/*.jpg or my_photos/<class>/*.jpg. Milliseconds are of the deployed network on this machine, one
image at a time, one thread, in onnxruntime (pip install 'gemnet[export]') or else in PyTorch: search where the network
will run. For another size: --cfg-options data.resolution=224.

MACs are neither limited nor charged. The space has what processors are fast at (docs/gemnet_search.md): widths in
multiples of 16, ReLU, pools and wide depthwise windows without activation, dense windows, few passes. The search begins
with known blocks, each as wide as the limit allows, so that what is found is no worse than those.
"""

space = dict(
    type='gemnet',
    form='imagenet',
    size='a',
    max_nodes=12,
    width_step=16,
    stem_width=16,
    stage_widths=[32, 64, 112, 192],
    stage_depths=[1, 2, 4, 2],
    head_width=640,
    vocabulary=[
        'dw3x3_bn_act',
        'dw5x5_bn_act',
        'dw3x3_bn',
        'dw5x5_bn',
        'dw7x7_bn',
        'conv1x1_bn_act',
        'conv3x3_bn_act',
        'conv3x3w16_bn_act',
        'avg_pool_3x3',
        'max_pool_3x3',
        'identity',
    ],
    layouts=dict(
        shallow=dict(),
        even=dict(stage_widths=[16, 48, 96, 160], stage_depths=[2, 3, 4, 3]),
        deep=dict(stage_widths=[32, 64, 112, 192], stage_depths=[2, 3, 6, 3]),
        convolution=dict(stage_cells=['conv3x3', 'cell', 'cell', 'cell']),
        residual=dict(stage_cells=['basic', 'basic', 'cell', 'cell'], stage_depths=[1, 2, 3, 2]),
        patches=dict(
            stem=[dict(op='conv4x4_bn_act', width=32, stride=4)],
            stage_strides=[1, 2, 2, 2],
            stage_depths=[2, 3, 4, 2],
        ),
    ),
    choices=dict(
        width=[0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0],
        inner_ratio=[1, 2, 3, 4],
        se_ratio=[0.0],
        residual=['identity', 'pool_conv1x1_bn'],
    ),
)
strategy = dict(type='nasgem', initial=16)
evaluator = dict(type='training')
data = dict(source='photos', resolution=128, dev_fraction=0.2)
recipe = dict(batch_size=64, lr=0.1)
# Half the side and, with few images, so many epochs that there are 375 steps.
fidelity = dict(epochs=3, resolution=64)

score = dict(weight=0.0)
limits = dict(max_latency=3.0)

search = dict(
    evaluations=64,
    batch=8,
    ahead=4,
    seed=0,
    steps=375,
    # Without a width each is as wide as the limits allow.
    first=[
        dict(
            cell=dict(ops=ops, edges=edges),
            macro=dict(inner_ratio=ratio, se_ratio=0.0, activation='relu', residual='identity', layout=layout),
        )
        for ops, edges, ratio, layout in [
            # gemnet_a's: a mean of the input and its largest neighbours, one window
            (['max_pool_3x3', 'dw3x3_bn'], [[0, 1], [0, 2], [1, 2], [2, 3]], 2, 'shallow'),
            (['max_pool_3x3', 'dw3x3_bn'], [[0, 1], [0, 2], [1, 2], [2, 3]], 2, 'deep'),
            (['max_pool_3x3', 'dw3x3_bn'], [[0, 1], [0, 2], [1, 2], [2, 3]], 2, 'patches'),
            # a wide window, MobileNetV2's block, ResNet's: dense, and in groups where maps are small
            (['dw5x5_bn'], [[0, 1], [1, 2]], 2, 'shallow'),
            (['dw3x3_bn_act'], [[0, 1], [1, 2]], 3, 'even'),
            (['conv3x3_bn_act'], [[0, 1], [1, 2]], 1, 'shallow'),
            (['conv3x3_bn_act'], [[0, 1], [1, 2]], 1, 'convolution'),
            (['conv3x3w16_bn_act'], [[0, 1], [1, 2]], 1, 'residual'),
        ]
    ],
)
time_limit = 1800.0
confirm = dict(top=4, seeds=2)
final = dict(epochs=30)
comparison = dict(random_cells=4, blocks=['mobilenetv2', 'resnet'], seeds=1, epochs=8)
