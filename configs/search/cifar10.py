"""CIFAR-10: a network of about 6 million MACs for 32x32 images.

Any image folder or timm data set takes its place: --data path/to/images (with space.input_size or data.resolution).
"""

space = dict(type='gemnet', form='cifar', size='a')
strategy = dict(type='nasgem', initial=16)
evaluator = dict(type='training')
data = dict(source='cifar10', dev_fraction=0.2)
# Three epochs of 8,000 images at 16x16: 10 to 60 s a candidate on one core. How well that ranks: docs/training.md.
recipe = dict(batch_size=64, lr=0.2)
fidelity = dict(epochs=3, resolution=16, subset=0.2)

score = dict(target_macs=6e6, weight=1.0)
limits = dict(max_macs=9e6)

# With fewer images than CIFAR-10 has, candidates see more of them, more often: as many steps as these.
search = dict(evaluations=64, batch=8, ahead=4, seed=0, steps=375)
time_limit = 1200.0
confirm = dict(top=4, seeds=2)
final = dict(epochs=30)
comparison = dict(random_cells=4, blocks=['mobilenetv2', 'resnet'], seeds=1, epochs=8)
