"""The default search: scenes of handwritten digits (20x20 pixels, in scikit-learn)."""

space = dict(
    type='gemnet',
    form='imagenet',
    size='a',
    stem_width=12,
    stage_widths=[16, 24, 32],
    stage_depths=[1, 1, 1],
    stage_strides=[2, 1, 1],
    head_width=160,
    width_step=4,
    max_nodes=10,
    needs_convolution=True,
    choices=dict(width=[0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25]),
)
strategy = dict(type='nasgem', initial=12)
evaluator = dict(type='training')
data = dict(source='digit_scenes', dev_fraction=1 / 3)
recipe = dict(batch_size=64, lr=0.8, crop=0.0, flip=False)
fidelity = dict(epochs=8)

score = dict(target_macs=0.1e6, weight=0.5)
limits = dict(max_macs=0.2e6)

search = dict(evaluations=48, batch=6, ahead=3, seed=0)
time_limit = 300.0
confirm = dict(top=4, seeds=2, epochs=12)
final = dict(epochs=12)
comparison = dict(random_cells=4, blocks=['mobilenetv2', 'resnet'], seeds=2, test=True)
