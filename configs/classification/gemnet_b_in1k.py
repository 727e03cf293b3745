# A recipe for GPUs, known to start and not yet run to its end: no ImageNet-1k weights of GEMNet exist.
#   torchrun --nproc-per-node 8 tools/train.py configs/classification/gemnet_b_in1k.py --launcher pytorch
_base_ = ['../_base_/imagenet.py', '../_base_/schedule_imagenet.py', '../_base_/classification_runtime.py']

model = dict(
    type='gemnet.ImageClassifier',
    arch='gemnet_b',
    label_smoothing=0.1,
    options=dict(drop_rate=0.2, drop_path_rate=0.05),
    data_preprocessor=dict(
        type='gemnet.BatchAugmentation', crop=0, flip=False, mixup=0.1, cutmix=0.5, erase=0.2))
custom_imports = dict(imports=['gemnet.classification'], allow_failed_imports=False)
