"""gemnet_a for the zoo on Imagenette at 96x96: imagenette96_long.py's recipe with RandAugment and mixup, 160 epochs.

After 60 epochs without them a network knows 95 % of its training images and 85 % of others.

    python tools/compare.py configs/comparison/imagenette96_longer.py
"""

_base_ = './imagenette96_long.py'

recipe = dict(randaugment=9, mixup=0.2)
epochs = 160
networks = [dict(type='gemnet', arch='gemnet_a')]
