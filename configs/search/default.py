"""The default search: handwritten digits (8x8 pixels, 1,797 images, in scikit-learn), within ten minutes on two cores."""

space = dict(type='gemnet', form='cifar', size='a', stage_widths=[16, 24, 32], stage_depths=[1, 1, 1])
strategy = dict(type='nasgem', initial=12)
evaluator = dict(type='training')
# Digits are easy: three quarters of the training images (1,079) are set aside to measure on, so that the rest is too few
# for every cell to learn all of them (docs/training.md: how well this ranks).
data = dict(source='digits', dev_fraction=0.75)
recipe = dict(batch_size=32, lr=0.1, flip=False)
fidelity = dict(epochs=8)

score = dict(target_macs=0.5e6, weight=0.5)
limits = dict(max_macs=1e6)

search = dict(evaluations=48, batch=6, ahead=3, seed=0)
time_limit = 300.0
confirm = dict(top=4, seeds=2)
final = dict(epochs=40)
comparison = dict(random_cells=4, blocks=['mobilenetv2', 'resnet'], seeds=2, test=True)
