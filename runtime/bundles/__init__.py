"""A bundle: its files and manifest, its graphs in onnxruntime, and what is asked of them."""
