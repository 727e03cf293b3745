# RetinaNet for images of 320 pixels.
_base_ = ['./retinanet.py']

model = dict(
    # A quarter of the usual width, half the depth: the heads would cost ten times the backbone. Anchors from 16 pixels
    # on, for objects are a quarter of the size they have at 1333x800.
    neck=dict(out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2)))
