"""GEMNet-A in two detectors on a small part of COCO, against networks of its MACs that were pretrained alike.

    python tools/compare.py configs/comparison/imagenette96.py --workers 2      # the backbones
    python tools/compare.py configs/comparison/coco320.py --workers 2
    python tools/compare.py configs/comparison/coco320.py --final
"""

detectors = ['retinanet_gemnet_coco320', 'faster_rcnn_gemnet_coco320']
reference = 'gemnet_a'
backbones = [
    dict(arch='gemnet_a'),
    dict(genome='{{ fileDirname }}/../peers/mobilenetv2_050.json'),
    dict(genome='{{ fileDirname }}/../peers/resnet18_022.json'),
]
weights = 'work_dirs/comparison_imagenette96/weights/{name}_seed{seed}_*.safetensors'
metric = 'coco/person_mAP_50'
seeds = [0, 1]
workers = dict(threads=1)
