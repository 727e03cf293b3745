"""mmengine's registries of our modules.

Kept apart and free of other imports: mmengine imports this file when it resolves ``type='gemnet.X'``, and swallows
whatever import errors happen then.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="gemnet",
    locations=["gemnet.detection.backbone", "gemnet.detection.focal_loss"],
)
# Filled by `gemnet.classification.model` and `gemnet.detection.dataset`. Configs import those by name: gemnet knows
# nothing of nas, and classification needs no mmdet.
DATASETS = Registry("dataset", parent=MMENGINE_DATASETS, scope="gemnet")
FUNCTIONS = Registry("function", parent=MMENGINE_FUNCTIONS, scope="gemnet")
METRICS = Registry("metric", parent=MMENGINE_METRICS, scope="gemnet")
