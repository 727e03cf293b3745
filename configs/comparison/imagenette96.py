"""Imagenette at 96x96 in the ImageNet form: gemnet_a_202611 against networks of others, as they are.

mobilenetv2_050 and mnasnet_050 cost more than gemnet_a_202611, mnasnet_050 by at least an eighth; mnasnet_small costs less.
resnet18_022 is a ResNet-18 of at least mobilenetv2_050's MACs, a counterpart of the comparison in detectors.

    python tools/compare.py configs/comparison/imagenette96.py --workers 2
"""

data = dict(source='{{$GEMNET_DATA:data}}/imagenette96', dev_fraction=0.1, resolution=96)
recipe = dict(batch_size=64)
epochs = 20
seeds = [0, 1, 2]
lrs = [0.025, 0.05, 0.1, 0.2]
choice = dict(epochs=5, subset=0.5)

reference = 'gemnet_a_202611'
# MobileNetV2 and ResNet are genomes, so that detectors can take them as backbones. As genomes they are timm's and
# torchvision's own networks: tests/gemnet/test_classics.py copies weights and compares outputs.
networks = [
    dict(type='gemnet', arch='gemnet_a_202611'),
    dict(type='gemnet', genome='{{ fileDirname }}/../peers/mobilenetv2_050.json'),
    dict(type='timm', arch='mnasnet_050'),
    dict(type='timm', arch='mnasnet_small'),
    dict(type='gemnet', genome='{{ fileDirname }}/../peers/resnet18_022.json'),
]
workers = dict(threads=1)
