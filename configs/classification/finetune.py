# Fine-tunes a network of the zoo on a folder of images, <data_root>/<class>/* or <data_root>/train/<class>/*:
#   python tools/train.py configs/classification/finetune.py --cfg-options data_root=my_images
# Classes are read from the folder. The variables below are options too: ... data_root=my_images max_epochs=50 lr=0.02
_base_ = ['../_base_/classification_runtime.py']

data_root = 'my_images'
weights = 'gemnet_a.imagenette96'  # a tag of model_zoo/README.md
pretrained = True  # False: the same network without its weights, to see what they are worth
image_size = 'network'  # the side in pixels that the weights were trained at; or a number
max_epochs = 30
batch_size = 32
lr = 0.02
dev_fraction = 0.2  # share of the images that is set aside to measure on
subset = 1.0  # share of the others to learn from
flip = True  # whether mirror images are images
mixup = 0.2  # 0 for none; so many images are learnt mixed
cutmix = 1.0

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='gemnet.whole_batch'),
    drop_last=True,
    dataset=dict(
        type='gemnet.ImageArrays',
        source=data_root,
        resolution=image_size,
        split='train',
        dev_fraction=dev_fraction,
        subset=subset))
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='gemnet.whole_batch'),
    dataset=dict(
        type='gemnet.ImageArrays',
        source=data_root,
        resolution=image_size,
        split='dev',
        dev_fraction=dev_fraction))
test_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='gemnet.whole_batch'),
    dataset=dict(type='gemnet.ImageArrays', source=data_root, resolution=image_size, split='val'))

val_evaluator = dict(type='gemnet.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

model = dict(
    type='gemnet.ImageClassifier',
    arch=weights,
    pretrained=pretrained,
    label_smoothing=0.1,
    data_preprocessor=dict(type='gemnet.BatchAugmentation', crop=0.125, flip=flip, mixup=mixup, cutmix=cutmix))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, custom_keys={'.edge_weights.': dict(decay_mult=0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
