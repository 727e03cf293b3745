"""Imagenette at 96x96 in the ImageNet form: gemnet_a against timm's own networks, as they are.

mobilenetv2_050 and mnasnet_050 cost more than gemnet_a, mnasnet_050 by at least an eighth; mnasnet_small costs less.

    python tools/compare.py configs/comparison/imagenette96.py --workers 2
"""

data = dict(source='{{$GEMNET_DATA:data}}/imagenette96', dev_fraction=0.1, resolution=96)
recipe = dict(batch_size=64)
epochs = 30
seeds = [0, 1, 2]
lrs = [0.05, 0.1, 0.2]
choice = dict(epochs=5, subset=0.5)

reference = 'gemnet_a'
networks = [
    dict(type='gemnet', arch='gemnet_a'),
    dict(type='timm', arch='mobilenetv2_050'),
    dict(type='timm', arch='mnasnet_050'),
    dict(type='timm', arch='mnasnet_small'),
]
workers = dict(threads=1)
