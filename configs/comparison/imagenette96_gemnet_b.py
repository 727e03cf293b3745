"""gemnet_b for the zoo, trained as gemnet_a in imagenette96.py: one training, nothing is claimed.

    python tools/compare.py configs/comparison/imagenette96_gemnet_b.py
"""

_base_ = './imagenette96.py'

seeds = [0]
lrs = [0.1]
reference = 'gemnet_b'
networks = [dict(type='gemnet', arch='gemnet_b')]
