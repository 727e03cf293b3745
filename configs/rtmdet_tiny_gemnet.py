# RTMDet-tiny (Lyu et al., arXiv 2212.07784) with MMDetection's own schedule and augmentation, on GEMNet-B, COCO 2017:
#   python tools/train.py configs/rtmdet_tiny_gemnet.py
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py']
custom_imports = dict(imports=['gemnet.detection', 'gemnet.detection.dataset'], allow_failed_imports=False)

data_root = '{{$GEMNET_DATA:data}}/coco/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# With weights (init_cfg) the tools write their mean, std and order of channels into data_preprocessor.
model = dict(backbone=dict(_delete_=True, type='gemnet.GEMNet', arch='gemnet_b', out_indices=(1, 2, 3)))
# For eight GPUs with 32 images each; scaled to the real batch.
auto_scale_lr = dict(enable=True, base_batch_size=256)
