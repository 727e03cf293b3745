"""GEMNet in object detectors.

``import gemnet.detection`` makes MMDetection importable where MMCV has no compiled operators, has mmengine read
checkpoints without running what is in them and find bases such as ``gemnet::retinanet_gemnet.py``, and registers the
backbone ``gemnet.GEMNet`` and the loss ``gemnet.FocalLoss``. It needs neither MMCV nor MMDetection. Import it before
``mmdet``, or name it in a config: ``custom_imports=dict(imports=['gemnet.detection'], allow_failed_imports=False)``.
"""

from gemnet.checkpoint import guard_mmengine
from gemnet.config_files import name_our_configs
from gemnet.detection import mmcv_ext
from gemnet.detection.backbone import GEMNet
from gemnet.detection.focal_loss import FocalLoss

mmcv_ext.install()
guard_mmengine()
name_our_configs()

__all__ = ["FocalLoss", "GEMNet"]
