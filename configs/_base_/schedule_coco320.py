# About half an hour on two cores. Trained from few images and often from scratch: AdamW and a linear decay get further
# in so few steps than SGD.
max_epochs = 9

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', eta_min_ratio=0.01, begin=0, end=max_epochs, T_max=max_epochs, by_epoch=True,
        convert_to_iter_based=True)
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=10))
auto_scale_lr = dict(enable=True, base_batch_size=8)
