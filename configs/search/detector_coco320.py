"""A backbone found inside its detector: each candidate is trained as RetinaNet's on a small part of COCO.

    python tools/search.py configs/search/detector_coco320.py --work-dir work_dirs/detector

For GPUs: a candidate takes more than an hour of a CPU core. For images of your own copy
configs/retinanet_gemnet_coco320.py, put your data and classes there (docs/detection.md), and name it in evaluator.config.
"""

space = dict(type='gemnet', form='imagenet', size='a', input_size=224)
strategy = dict(type='nasgem', initial=16)
evaluator = dict(type='detector', config='retinanet_gemnet_coco320', metric='coco/person_mAP_50')
# Each starts from random weights. How many epochs rank candidates well has not been measured.
fidelity = dict(epochs=12)

score = dict(target_macs=100e6, weight=1.0)
limits = dict(max_macs=150e6)

search = dict(evaluations=64, batch=8, ahead=4, seed=0)
confirm = dict(top=4, seeds=2)
