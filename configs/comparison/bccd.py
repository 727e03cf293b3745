"""GEMNet-A in a detector of blood cells, against networks that take as long and were pretrained alike.

All backbones start from 60 epochs of Imagenette (imagenette96_time_long.py, seed 0); none is faster than gemnet_a in
onnxruntime. configs/_base_/bccd_detection.py says where the images come from.

    python tools/compare.py configs/comparison/bccd.py --workers 2
    python tools/compare.py configs/comparison/bccd.py --final
"""

detectors = ['retinanet_gemnet_bccd']
reference = 'gemnet_a'
backbones = [
    dict(arch='gemnet_a', weights='{{ fileDirname }}/../peers/gemnet_a_60_epochs.safetensors'),
    dict(genome='{{ fileDirname }}/../peers/resnet18_025.json'),
    dict(genome='{{ fileDirname }}/../peers/repvgg_a0_033.json'),
]
weights = '{{ fileDirname }}/../peers/{name}.safetensors'
metric = 'coco/bbox_mAP_50'
seeds = [0, 1, 2]
workers = dict(threads=1)
