# SGD, five epochs of warm-up, cosine; mixed precision where there is a GPU; an average of the weights is what is
# measured and kept. With another total batch size: --auto-scale-lr.
max_epochs = 300
lr = 0.5
amp = True

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, nesterov=True, weight_decay=3e-5),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, custom_keys={'.edge_weights.': dict(decay_mult=0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=5, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=1024)

custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.0002, gamma=2000, update_buffers=True, priority='ABOVE_NORMAL')]
