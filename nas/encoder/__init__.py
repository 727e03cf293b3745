"""The graph encoder: cells to vectors, pretrained on graphs alone (docs/embedding.md)."""

from nas.encoder.cache import encoder_key, load_or_train
from nas.encoder.training import Encoder, EncoderConfig, EncoderError, train_encoder

__all__ = ["Encoder", "EncoderConfig", "EncoderError", "encoder_key", "load_or_train", "train_encoder"]
