"""Imagenette at 96x96: gemnet_a against hand-made networks that take as long, in onnxruntime, one thread.

Peers are as wide as it takes to need at least gemnet_a's time, the mean of one image at a time and of 32. It takes
onnxruntime: pip install 'gemnet[export]'. The recipe is imagenette96_long.py's in mixed precision, but for the
average of the weights.

    python tools/compare.py configs/comparison/imagenette96_time.py --estimate
    python tools/compare.py configs/comparison/imagenette96_time.py --workers 2
"""

data = dict(source="{{$GEMNET_DATA:data}}/imagenette96", dev_fraction=0.1, resolution=96)
recipe = dict(batch_size=64, schedule="cosine", scale=0.35, progressive=0.67, precision="bfloat16")
epochs = 20
seeds = [0, 1]
lrs = [0.025, 0.05, 0.1, 0.2]
choice = dict(epochs=4, subset=0.5)
fit = dict(by="time", batch_sizes=[1, 32])

reference = "gemnet_a"
networks = [
    dict(type="gemnet", arch="gemnet_a"),
    # Widths in multiples of 16, of which onnxruntime makes most: on an idle machine the equal of gemnet_a.
    dict(type="resnet", name="resnet18_025", width=0.25),
    dict(type="resnet", name="resnet18"),
    dict(type="mobilenetv4_conv_small"),
]
workers = dict(threads=1)
