# A recipe for GPUs, known to start and not yet run to its end: no ImageNet-1k weights of GEMNet exist.
#   torchrun --nproc-per-node 8 tools/train.py configs/classification/gemnet_c_in1k.py --launcher pytorch
_base_ = ['../_base_/imagenet.py', '../_base_/schedule_imagenet.py', '../_base_/classification_runtime.py']

train_dataloader = dict(dataset=dict(rand_augment='rand-m9-mstd0.5-inc1'))
model = dict(
    type='gemnet.ImageClassifier',
    arch='gemnet_c',
    label_smoothing=0.1,
    options=dict(drop_rate=0.2, drop_path_rate=0.1),
    data_preprocessor=dict(
        type='gemnet.BatchAugmentation', crop=0, flip=False, mixup=0.2, cutmix=1.0, erase=0.25))
custom_imports = dict(imports=['gemnet.classification'], allow_failed_imports=False)
