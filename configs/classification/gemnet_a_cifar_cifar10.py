_base_ = ['../_base_/cifar10.py', '../_base_/schedule_cifar.py', '../_base_/classification_runtime.py']

model = dict(
    type='gemnet.ImageClassifier',
    arch='gemnet_a_cifar',
    label_smoothing=0.1,
    data_preprocessor=dict(type='gemnet.BatchAugmentation', crop=0.125, flip=True, cutout=0.25))
