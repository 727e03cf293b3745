"""What is in an image? ``python predict.py IMAGE...``; needs onnxruntime, numpy and Pillow, and the .onnx beside it."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(name: str) -> Image.Image:
    """An upright image of 8 bits, as in training: 16-bit grey by its upper half, what is transparent on middle grey."""
    image: Image.Image = Image.open(name)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") and not deep:
        raise OSError("of its grey levels none is known to be white; save it with 8 or 16 bits")
    if deep:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return image.convert("RGB")


network = onnxruntime.InferenceSession(next(Path(__file__).parent.glob("*.onnx")))
about = network.get_modelmeta().custom_metadata_map
side, classes, mean, std = (json.loads(about[key]) for key in ("input_size", "classes", "mean", "std"))
failed = []
for name in sys.argv[1:] or sys.exit(__doc__):
    try:
        image = read(name).convert("L" if about["in_chans"] == "1" else "RGB")
    except Exception as error:  # a damaged image makes Pillow raise whatever it meets
        failed.append(f"{name} can't be read: {str(error) or type(error).__name__}")
        continue
    shorter, least = int(side / float(about["crop_pct"])), min(image.size)
    size = [shorter if length == least else int(shorter * length / least) for length in image.size]
    left, top = (round((length - side) / 2) for length in size)
    image = image.resize(size, Image.Resampling[about["interpolation"].upper()])
    image = image.crop((left, top, left + side, top + side))
    pixels = (np.asarray(image, np.float32).reshape(side, side, -1) / 255 - mean) / std
    logits = network.run(None, {"images": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(name, *(f"{classes[k]} {shares[k]:.1%}" for k in np.argsort(-shares)[:5]), sep="\n  ")
if failed:
    sys.exit("\n".join(failed))
