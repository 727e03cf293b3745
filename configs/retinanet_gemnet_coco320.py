# RetinaNet on GEMNet-A, a small part of COCO, about half an hour on two cores:
#   python tools/train.py configs/retinanet_gemnet_coco320.py
_base_ = [
    '_base_/detection_runtime.py', '_base_/coco320_detection.py', '_base_/schedule_coco320.py', '_base_/retinanet.py'
]
model = dict(
    backbone=dict(arch='gemnet_a', init_cfg=None),
    # A quarter of the usual width, half the depth: the heads would cost ten times the backbone. Anchors from 16 pixels
    # on, for objects are a quarter of the size they have at 1333x800.
    neck=dict(out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2)))
