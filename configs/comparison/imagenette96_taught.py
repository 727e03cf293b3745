"""gemnet_a for the zoo, taught by EfficientNet-Lite0, which knew ImageNet: imagenette96_long.py's recipe and a teacher.

docs/training.md (A teacher) says where the teacher's weights come from and how it is fine-tuned first.

    python tools/compare.py configs/comparison/imagenette96_taught.py
"""

_base_ = './imagenette96_long.py'

recipe = dict(teacher=dict(network='{{$GEMNET_TEACHER:work_dirs/teacher_imagenette96}}', weight=0.9, temperature=2.0))
networks = [dict(type='gemnet', arch='gemnet_a')]
