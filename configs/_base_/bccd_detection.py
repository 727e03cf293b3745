# 364 microscope images of blood cells, 640x480, in three classes. They are seen at 320x240, so that a step is cheap enough
# for a laptop. 205 images are learnt from, 87 are there to choose by; the 72 test images are opened by
# `tools/test.py --final` only. In data/BCCD_Dataset (or below GEMNET_DATA):
#   git clone https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset
#   python tools/voc.py data/BCCD_Dataset/BCCD
_base_ = ['./coco320_detection.py']

data_root = '{{$GEMNET_DATA:data}}/BCCD_Dataset/BCCD/'
cells = dict(
    data_root=data_root, data_prefix=dict(img='JPEGImages/'), metainfo=dict(classes=('Platelets', 'RBC', 'WBC')))
train_file = 'annotations_coco/instances_train.json'
val_file = 'annotations_coco/instances_val.json'
test_file = 'annotations_coco/instances_test.json'

train_dataloader = dict(dataset=dict(ann_file=train_file, part=None, **cells))
val_dataloader = dict(dataset=dict(ann_file=val_file, part=None, **cells))
test_dataloader = dict(dataset=dict(ann_file=test_file, **cells))
val_evaluator = dict(ann_file=data_root + val_file, part=None, report_classes=())
test_evaluator = dict(ann_file=data_root + test_file, report_classes=())
