"""The counterparts of coco320.py alone, pretrained as in imagenette96.py, which is where gemnet_a_202611's weights come from.

Of that comparison's learning rates only the two that these networks chose are offered.

    python tools/compare.py configs/comparison/imagenette96_backbones.py --workers 2
"""

_base_ = './imagenette96.py'

seeds = [0]
lrs = [0.05, 0.1]
reference = 'mobilenetv2_050'
networks = [
    dict(type='gemnet', genome='{{ fileDirname }}/../peers/mobilenetv2_050.json'),
    dict(type='gemnet', genome='{{ fileDirname }}/../peers/resnet18_022.json'),
]
