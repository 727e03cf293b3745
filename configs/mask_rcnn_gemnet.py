# Mask R-CNN on GEMNet-B, COCO 2017, 1x schedule:
#   python tools/train.py configs/mask_rcnn_gemnet.py
_base_ = [
    '_base_/detection_runtime.py', '_base_/coco_detection.py', '_base_/schedule_1x.py', '_base_/mask_rcnn.py'
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

# Another network: arch='gemnet_c', or genome='work_dirs/my_search/best.json'. Its weights: init_cfg='path or zoo tag'.
model = dict(backbone=dict(arch='gemnet_b', frozen_stages=-1, norm_eval=False, init_cfg=None))
