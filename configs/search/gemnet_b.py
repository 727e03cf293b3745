"""The search of gemnet_a.py in the deeper network of size b: at most 12.36 million MACs for 32x32 images.

gemnet_b itself repeats the cell that gemnet_a's search found; this looks for one of its own.

    python tools/search.py configs/search/gemnet_b.py --work-dir work_dirs/gemnet_b
"""

_base_ = './gemnet_a.py'

space = dict(size='b')
score = dict(target_macs=12e6)
limits = dict(max_macs=1.236e7)
