"""gemnet_b_202611 for the zoo, trained as gemnet_a_202611 in imagenette96.py: one training, nothing is claimed.

    python tools/compare.py configs/comparison/imagenette96_gemnet_b.py
"""

_base_ = './imagenette96.py'

seeds = [0]
lrs = [0.1]
reference = 'gemnet_b_202611'
networks = [dict(type='gemnet', arch='gemnet_b_202611')]
