"""mmengine's registry of our modules.

Kept apart and free of other imports: mmengine imports this file when it resolves ``type='gemnet.X'``, and swallows
whatever import errors happen then.
"""

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="gemnet",
    locations=["gemnet.detection.backbone", "gemnet.classification"],
)
