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
    dict(type='random_cells', count=8, seed=0, space=dict(form='cifar', size='a')),
    dict(type='rewired', count=8, seed=0),  # fewer where the cell is so small that it has no more
    # MobileNetV2's block in the reference's own stem, stages and head: what the cell alone is worth.
    dict(type='block', block='mobilenetv2', name='mobilenetv2_block'),
]
workers = dict(threads=1)
