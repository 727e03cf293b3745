# ImageNet-1k, or any folder of its shape: imagenet/{train,val}/<class>/* below the data root ($GEMNET_DATA, else data).
# Images are decoded by workers. 4 % of the training images (`dev`) are set aside to choose by; the 50,000 official ones
# are opened by `tools/test.py --final` only.
data_root = 'imagenet'
resolution = 224
batch_size = 128  # a GPU; eight GPUs make the 1,024 that the learning rate is meant for
num_workers = 8
rand_augment = 'rand-m7-mstd0.5-inc1'

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='gemnet.ImageFiles',
        source=data_root,
        resolution=resolution,
        split='train',
        augment=True,
        rand_augment=rand_augment))
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='gemnet.ImageFiles', source=data_root, resolution=resolution, split='dev'))
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='gemnet.ImageFiles', source=data_root, resolution=resolution, split='val'))

val_evaluator = dict(type='gemnet.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
