# CIFAR-10: an image folder data/cifar10 (or $GEMNET_DATA/cifar10), else torchvision's download.
# 45,000 of the training images are learnt from; 5,000 (`dev`) are set aside to choose by. The official test images are
# opened by `tools/test.py --final` only. data_root is a folder of your own or the name of another data set (docs/training.md).
data_root = 'cifar10'
resolution = 32
batch_size = 128

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,  # images are bytes in memory: a batch takes less time than a worker's hand-over
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='gemnet.whole_batch'),
    drop_last=True,
    dataset=dict(type='gemnet.ImageArrays', source=data_root, resolution=resolution, split='train', dev_fraction=0.1))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='gemnet.whole_batch'),
    dataset=dict(type='gemnet.ImageArrays', source=data_root, resolution=resolution, split='dev', dev_fraction=0.1))
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='gemnet.whole_batch'),
    dataset=dict(type='gemnet.ImageArrays', source=data_root, resolution=resolution, split='val'))

val_evaluator = dict(type='gemnet.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
