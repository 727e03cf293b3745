# Faster R-CNN on GEMNet-A, 364 images of blood cells (_base_/bccd_detection.py says where they come from):
#   python tools/train.py configs/faster_rcnn_gemnet_bccd.py
_base_ = [
    '_base_/detection_runtime.py', '_base_/bccd_detection.py', '_base_/schedule_coco320.py', '_base_/faster_rcnn_320.py'
]
max_epochs = 24

model = dict(backbone=dict(arch='gemnet_a', init_cfg='gemnet_a.imagenette96'), roi_head=dict(bbox_head=dict(num_classes=3)))
