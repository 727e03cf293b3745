"""The search of gemnet_a.py in the deeper network of size c: at most 24.72 million MACs for 32x32 images.

gemnet_c itself repeats the cell that gemnet_a's search found; this looks for one of its own.

    python tools/search.py configs/search/gemnet_c.py --work-dir work_dirs/gemnet_c
"""

_base_ = './gemnet_a.py'

space = dict(size='c')
score = dict(target_macs=24e6)
limits = dict(max_macs=2.472e7)
