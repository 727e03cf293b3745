"""What a teacher is worth: gemnet_a_cifar_fast learns from the labels alone, or from gemnet_b_cifar's logits besides.

python tools/compare.py configs/comparison/cifar10_teacher.py --work-dir work_dirs/alone --cfg-options recipe.teacher=None
python tools/compare.py configs/comparison/cifar10_teacher.py --work-dir work_dirs/taught
"""

_base_ = "./cifar10.py"

recipe = dict(batch_size=128, schedule="cosine", teacher="gemnet_b_cifar.cifar10")
lrs = [0.2]
reference = "gemnet_a_cifar_fast"
networks = [dict(type="gemnet", arch="gemnet_a_cifar_fast")]
