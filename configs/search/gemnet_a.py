"""The search behind GEMNet: the best network of at most 6.2 million MACs for 32x32 images, on CIFAR-10.

144 candidates are trained for three epochs of 8,000 images at 16x16, which ranks as well as 24x24 at less than half of
the time (docs/training.md). The best eight are promoted: trained three times as long with two fresh seeds each.
About an hour and a half of one core (docs/gemnet_search.md):

    python tools/search.py configs/search/gemnet_a.py --work-dir work_dirs/gemnet_a
    python tools/search.py configs/search/gemnet_a.py --work-dir work_dirs/random_a --cfg-options strategy.type=random
"""

space = dict(type='gemnet', form='cifar', size='a')
strategy = dict(type='nasgem', initial=24)
evaluator = dict(type='training')
data = dict(source='cifar10', dev_fraction=0.2)
recipe = dict(batch_size=64, lr=0.2)
fidelity = dict(epochs=3, resolution=16, subset=0.2)

score = dict(target_macs=6e6, weight=1.0)
limits = dict(max_macs=6.2e6)

search = dict(evaluations=144, batch=8, ahead=4, seed=0)
time_limit = 1200.0
confirm = dict(top=8, seeds=2, epochs=9)
