"""gemnet_b and gemnet_c for the zoo, on Imagenette at 96x96: the recipe of imagenette96_long.py in mixed precision.

    python tools/compare.py configs/comparison/imagenette96_larger.py
"""

_base_ = './imagenette96_long.py'

recipe = dict(precision='bfloat16')
reference = 'gemnet_b'
networks = [dict(type='gemnet', arch='gemnet_b'), dict(type='gemnet', arch='gemnet_c')]
