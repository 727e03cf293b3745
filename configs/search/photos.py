"""Photos of 96 to 224 pixels: a network of about 100 million MACs at 128x128, with stride 32 and four levels.

    python tools/search.py configs/search/photos.py --data my_photos --work-dir work_dirs/photos

my_photos/train/<class>/*.jpg or my_photos/<class>/*.jpg. For another size: --cfg-options data.resolution=224
score.target_macs=300e6 limits.max_macs=450e6.
"""

space = dict(type='gemnet', form='imagenet', size='a')
strategy = dict(type='nasgem', initial=16)
evaluator = dict(type='training')
data = dict(source='photos', resolution=128, dev_fraction=0.2)
recipe = dict(batch_size=64, lr=0.1)
# Half the side and, with few images, so many epochs that there are 375 steps.
fidelity = dict(epochs=3, resolution=64)

score = dict(target_macs=100e6, weight=1.0)
limits = dict(max_macs=150e6)

search = dict(evaluations=64, batch=8, ahead=4, seed=0, steps=375)
time_limit = 1800.0
confirm = dict(top=4, seeds=2)
final = dict(epochs=30)
comparison = dict(random_cells=4, blocks=['mobilenetv2', 'resnet'], seeds=1, epochs=8)
