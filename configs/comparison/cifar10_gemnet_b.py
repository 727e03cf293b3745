"""gemnet_b_cifar for the zoo, trained as gemnet_a_cifar in cifar10.py: one training, nothing is claimed.

    python tools/compare.py configs/comparison/cifar10_gemnet_b.py
"""

_base_ = './cifar10.py'

seeds = [0]
lrs = [0.4]
reference = 'gemnet_b_cifar'
networks = [dict(type='gemnet', arch='gemnet_b_cifar')]
