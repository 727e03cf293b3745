_base_ = ['../_base_/imagenette96.py', '../_base_/schedule_imagenette.py', '../_base_/classification_runtime.py']

model = dict(
    type='gemnet.ImageClassifier',
    arch='gemnet_b',  # or another of timm's, on the same terms: --cfg-options model.arch=mobilenetv2_050
    label_smoothing=0.1,
    data_preprocessor=dict(type='gemnet.BatchAugmentation', crop=0.125, flip=True, cutout=0.25))
