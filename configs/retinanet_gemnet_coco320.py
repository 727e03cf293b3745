# RetinaNet on GEMNet-A, a small part of COCO, about half an hour on two cores:
#   python tools/train.py configs/retinanet_gemnet_coco320.py
_base_ = [
    '_base_/detection_runtime.py', '_base_/coco320_detection.py', '_base_/schedule_coco320.py', '_base_/retinanet_320.py'
]
model = dict(backbone=dict(arch='gemnet_a', init_cfg=None))
