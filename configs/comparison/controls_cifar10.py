"""Was it the search, and does the wiring matter? gemnet_a_cifar against 8 random cells of its MACs, and against 8 of its
own operations, edges and MACs but other wiring.

    python tools/compare.py configs/comparison/controls_cifar10.py --workers 2

All are trained at one learning rate: choosing it for 16 cells would take longer than training them.
"""

data = dict(source='cifar10', dev_fraction=0.1)
recipe = dict(batch_size=128)
epochs = 4
seeds = [0]
lrs = [0.4]

reference = 'gemnet_a_cifar'
networks = [
    dict(type='gemnet', arch='gemnet_a_cifar'),
    # From the space of configs/search/gemnet_a_cifar.py.
    dict(
        type='random_cells',
        count=8,
        seed=0,
        space=dict(
            form='cifar',
            size='a',
            width_step=4,
            layouts=dict(
                flat=dict(),
                four=dict(
                    stage_widths=[8, 16, 32, 64], stage_depths=[1, 2, 3, 2], stage_strides=[1, 2, 2, 2], head_width=320),
                late=dict(
                    stage_widths=[8, 16, 40, 80], stage_depths=[1, 1, 3, 2], stage_strides=[1, 2, 2, 2], head_width=480),
                later=dict(
                    stage_widths=[8, 16, 40, 96], stage_depths=[1, 1, 2, 3], stage_strides=[1, 2, 2, 2],
                    head_width=640)),
            choices=dict(
                width=[0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5, 1.75],
                inner_ratio=[1, 2, 3, 4],
                residual=['identity', 'pool_conv1x1_bn']))),
    dict(type='rewired', count=8, seed=0),  # fewer where the cell is so small that it has no more
    # MobileNetV2's block in the reference's own stem, stages and head: what the cell alone is worth.
    dict(type='block', block='mobilenetv2', name='mobilenetv2_block'),
]
workers = dict(threads=1)
