"""What freezing a pretrained GEMNet-A costs or gains in a RetinaNet on a small part of COCO.

    python tools/compare.py configs/comparison/coco320_frozen.py --workers 2
"""

detectors = ['retinanet_gemnet_coco320']
reference = 'all_learn'
weights = 'gemnet_a.imagenette96'
backbones = [
    dict(name='all_learn', arch='gemnet_a'),
    dict(name='stages_frozen', arch='gemnet_a', options=dict(frozen_stages=1, norm_eval=True)),
]
metric = 'coco/person_mAP_50'
seeds = [0]
workers = dict(threads=1)
