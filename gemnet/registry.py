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
    locations=["gemnet.detection.backbone", "gemnet.detection.focal_loss", "gemnet.classification"],
)
# `gemnet.detection.dataset` adds to these where a config imports it by name: it needs mmdet, and classification none.
DATASETS = Registry("dataset", parent=MMENGINE_DATASETS, scope="gemnet", locations=["gemnet.classification"])
FUNCTIONS = Registry("function", parent=MMENGINE_FUNCTIONS, scope="gemnet", locations=["gemnet.classification"])
METRICS = Registry("metric", parent=MMENGINE_METRICS, scope="gemnet", locations=["gemnet.classification"])
