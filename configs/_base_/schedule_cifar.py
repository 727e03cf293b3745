# SGD, cosine, a short warm-up; decay on kernels and matrices only; an average of the weights is what is measured and kept.
max_epochs = 100
lr = 0.2

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, custom_keys={'.edge_weights.': dict(decay_mult=0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=500, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=128)

custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.002, gamma=100, update_buffers=True, priority='ABOVE_NORMAL')]
