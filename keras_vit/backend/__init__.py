"""Everything that depends on the active Keras backend: operations, fused programs, private names of Keras."""
