"""Imagenette at 96x96, 60 epochs: gemnet_a against hand-made networks that take as long, in onnxruntime, one thread.

imagenette96_long.py's recipe: after imagenette96_time.py's 20 epochs the mobile networks have hardly begun to learn.
Each width was chosen from a few so that the network takes at least gemnet_a's time on a Xeon with AVX-512 (--estimate
measures it); without widths they are fitted on your machine, which takes some minutes each.

    python tools/compare.py configs/comparison/imagenette96_time_long.py --estimate
    python tools/compare.py configs/comparison/imagenette96_time_long.py --workers 2
"""

_base_ = './imagenette96_long.py'

lrs = [0.1, 0.2, 0.4]
choice = dict(epochs=4, subset=0.5)
fit = dict(by='time', batch_sizes=[1, 32])
networks = [
    dict(type='gemnet', arch='gemnet_a'),
    dict(type='resnet', name='resnet18', width=0.25),
    dict(type='lcnet', width=0.625),
    dict(type='mobilenetv3_small', reduction=32, width=1.0),
    dict(type='repvgg', width=0.3334),
    dict(type='starnet_s1', width=0.334),
    dict(type='mobilenetv4_conv_small', width=0.5625),
]
