"""The depthwise, pooling and matrix-vector engine."""
