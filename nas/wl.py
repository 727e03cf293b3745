"""The Weisfeiler-Lehman kernel under its public name, ``nas.wl.wl_kernel``; see `nas.graphs.wl`."""

from nas.graphs.wl import WLError, WLVocabulary, wl_colours, wl_features, wl_kernel, wl_kernel_rows

__all__ = ["WLError", "WLVocabulary", "wl_colours", "wl_features", "wl_kernel", "wl_kernel_rows"]
