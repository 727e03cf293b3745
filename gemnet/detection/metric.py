"""COCO's evaluation for MMDetection, on what `gemnet.detection.coco` reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric as MMDetCocoMetric

from gemnet.detection.coco import CocoFile, DataError, class_names, read_coco
from gemnet.errors import nearest
from gemnet.registry import METRICS


class CheckedCOCO(COCO):
    """pycocotools' index of a file that `read_coco` has read.

    Args:
        file: the file; None for an empty index, which pycocotools makes for detections.
    """

    def __init__(self, file: CocoFile | None = None) -> None:
        super().__init__()
        if file is not None:
            self.dataset = {
                "images": list(file.images),
                "annotations": list(file.annotations),
                "categories": list(file.categories),
            }
            with contextlib.redirect_stdout(None):  # it says that it creates an index
                self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs  # MMDetection's names for them


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric``, on all images of a file or on those of one part.

    Args:
        ann_file: the annotation file.
        part: as in `CocoDataset`.
        dev_fraction: as in `CocoDataset`.
        report_classes: classes whose AP and AP50 of boxes are figures of their own, ``person_mAP``, ``person_mAP_50``.
        **kwargs: as MMDetection's.

    Raises:
        DataError: the file can't be used, or has no such class to report, or the detector is not trained on it.
    """

    def __init__(
        self,
        ann_file: str,
        part: str | None = None,
        dev_fraction: float = 0.1,
        report_classes: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        kwargs.pop("sort_categories", None)  # MMDetection's, for files whose order differs: here names decide
        super().__init__(ann_file=None, **kwargs)
        self.report_classes = class_names(report_classes, "report_classes")
        file = read_coco(ann_file)
        for name in self.report_classes:
            if name not in file.names:
                raise DataError(f"report_classes: {ann_file} has no category {name!r}.{nearest(name, file.names)}")
        file = file.part(part, dev_fraction)
        self._file = file.with_masks() if "segm" in self.metrics else file
        self._coco_api = CheckedCOCO(self._file)

    @property
    def dataset_meta(self) -> Any:
        """What the data set says of itself; set before anything is trained or measured.

        Raises:
            DataError: it lacks a class that is to be reported, or has one that the file lacks.
        """
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Any) -> None:
        classes = (meta or {}).get("classes")
        if classes is not None:
            classes = class_names(classes)
            # Labels are numbered by the names, as in CocoDataset. Evaluation sorts categories by number, while
            # MMDetection names the rows of its table in the order of the labels: with our numbers both are the same.
            # Results that are only written are for others, and keep the file's.
            self.cat_ids = self._file.category_ids(classes)
            if not self.format_only:
                self._file_ids = dict(enumerate(self.cat_ids, 1))
                self._coco_api = CheckedCOCO(self._file.renumbered(classes))
                self.cat_ids = list(self._file_ids)
            for name in self.report_classes:
                if name not in classes:
                    raise DataError(
                        f"report_classes: the detector is not trained on {name!r}; its classes are "
                        f"{', '.join(classes)}."
                    )
        self._dataset_meta = meta

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """MMDetection's figures, and those of ``report_classes``; -1 for a class that has no box in the images.

        A detector that finds nothing, as after a first epoch, has AP 0; MMDetection gives no figures then, and its hook
        that keeps the best checkpoint looks for one.
        """
        figures: dict[str, float] = super().compute_metrics(results)
        if not self.format_only:
            if self.outfile_prefix is not None:
                self._restore_ids()
            names = self.metric_items or ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
            for kind in {"bbox", "segm"} & set(self.metrics):
                for name in names:
                    figures.setdefault(f"{kind}_{name}", 0.0)
        for name in self.report_classes:
            average = self._one_class([prediction for _, prediction in results], name)
            figures[f"{name}_mAP"], figures[f"{name}_mAP_50"] = average
        return figures

    def _restore_ids(self) -> None:
        """Writes the file's category ids into the result files in the place of ours."""
        for kind in ("bbox", "segm"):
            path = Path(f"{self.outfile_prefix}.{kind}.json")
            if path.is_file():
                rows = json.loads(path.read_text(encoding="utf-8"))
                for row in rows:
                    row["category_id"] = self._file_ids[row["category_id"]]
                path.write_text(json.dumps(rows), encoding="utf-8")

    def _one_class(self, predictions: list[dict[str, Any]], name: str) -> tuple[float, float]:
        label = list(self._dataset_meta["classes"]).index(name)
        category = self.cat_ids[label]
        if not self._coco_api.get_ann_ids(cat_ids=[category], iscrowd=0):
            return -1.0, -1.0
        rows = [
            {
                "image_id": prediction["img_id"],
                "category_id": category,
                "bbox": self.xyxy2xywh(prediction["bboxes"][n]),
                "score": float(prediction["scores"][n]),
            }
            for prediction in predictions
            for n in (prediction["labels"] == label).nonzero()[0]
        ]
        if not rows:
            return 0.0, 0.0
        with contextlib.redirect_stdout(None):  # MMDetection has printed its table already
            evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(rows), "bbox")
            evaluation.params.catIds = [category]
            evaluation.params.maxDets = list(self.proposal_nums)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return round(float(evaluation.stats[0]), 4), round(float(evaluation.stats[1]), 4)
