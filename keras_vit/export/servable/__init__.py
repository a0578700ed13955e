"""The graph that is served: signatures, preprocessing, quantized weights, description."""
