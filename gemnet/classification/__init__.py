"""What mmengine's Runner needs to train classifiers, registered in ``gemnet.``'s scope.

Configs name it: ``custom_imports=dict(imports=['gemnet.classification'], allow_failed_imports=False)``.
"""

from gemnet.classification import files, metric, model

__all__ = ["files", "metric", "model"]
