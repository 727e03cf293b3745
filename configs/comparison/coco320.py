"""GEMNet-A in two detectors on a small part of COCO, against networks of its MACs that were pretrained alike.

The counterparts' weights lie beside their genomes; imagenette96_backbones.py trains them.

    python tools/compare.py configs/comparison/coco320.py --workers 2
    python tools/compare.py configs/comparison/coco320.py --final
"""

detectors = ['retinanet_gemnet_coco320', 'faster_rcnn_gemnet_coco320']
reference = 'gemnet_a_202611'
backbones = [
    dict(arch='gemnet_a_202611', weights='gemnet_a_202611.imagenette96'),
    dict(genome='{{ fileDirname }}/../peers/mobilenetv2_050.json'),
    dict(genome='{{ fileDirname }}/../peers/resnet18_022.json'),
]
weights = '{{ fileDirname }}/../peers/{name}.safetensors'
metric = 'coco/person_mAP_50'
seeds = [0, 1]
workers = dict(threads=1)
