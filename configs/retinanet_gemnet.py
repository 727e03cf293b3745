# RetinaNet on GEMNet-B, COCO 2017, 1x schedule:
#   python tools/train.py configs/retinanet_gemnet.py
_base_ = [
    '_base_/detection_runtime.py', '_base_/coco_detection.py', '_base_/schedule_1x.py', '_base_/retinanet.py'
]
# Another network: arch='gemnet_c', or genome='work_dirs/my_search/best.json'. Its weights: init_cfg='path or zoo tag'.
model = dict(backbone=dict(arch='gemnet_b', frozen_stages=-1, norm_eval=False, init_cfg=None))
# RetinaNet's usual learning rate is half of Faster R-CNN's.
optim_wrapper = dict(optimizer=dict(lr=0.01))
