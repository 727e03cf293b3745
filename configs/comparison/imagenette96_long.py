"""Imagenette at 96x96, trained to the end: 60 epochs, random resized crops, an average of the weights.

    python tools/compare.py configs/comparison/imagenette96_long.py
"""

_base_ = './imagenette96.py'

recipe = dict(batch_size=64, schedule='cosine', scale=0.35, ema=0.998, progressive=0.67)
epochs = 60
seeds = [0]
lrs = [0.1]
reference = 'gemnet_a'
networks = [dict(type='gemnet', arch='gemnet_a')]
