# Faster R-CNN for images of 320 pixels.
_base_ = ['./faster_rcnn.py']

model = dict(
    # A quarter of the usual width and of the proposals: they would cost ten times the backbone. Anchors from 16 pixels
    # on, for objects are a quarter of the size they have at 1333x800.
    neck=dict(out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=64, fc_out_channels=256)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)))
