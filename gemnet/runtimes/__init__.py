"""Networks in the runtimes that run them: exported to ONNX and others, and how long they take there."""
