"""gemnet_b and gemnet_c for the zoo, trained as gemnet_a in imagenette96.py: one training each, nothing is claimed.

python tools/compare.py configs/comparison/imagenette96_larger.py --workers 1
"""

_base_ = "./imagenette96.py"

seeds = [0]
lrs = [0.1]
reference = "gemnet_b"
networks = [dict(type="gemnet", arch="gemnet_b"), dict(type="gemnet", arch="gemnet_c")]
