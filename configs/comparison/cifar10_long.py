"""Networks for the zoo: 36 epochs of CIFAR-10 instead of cifar10.py's six, one training each.

gemnet_c_cifar was trained with recipe.precision=float32, on a processor without bfloat16.

    python tools/compare.py configs/comparison/cifar10_long.py
"""

_base_ = './cifar10.py'

recipe = dict(batch_size=128, schedule='cosine', warmup=0.1, ema=0.998, progressive=0.75, precision='bfloat16')
epochs = 36
seeds = [0]
lrs = [0.2]
reference = 'gemnet_a_cifar'
networks = [
    dict(type='gemnet', arch='gemnet_b_cifar_fast'),
    dict(type='gemnet', arch='gemnet_a_cifar_fast'),
    dict(type='gemnet', arch='gemnet_a_cifar'),
    dict(type='gemnet', arch='gemnet_b_cifar'),
    dict(type='gemnet', arch='gemnet_c_cifar'),
]
