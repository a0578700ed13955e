"""Questions to the active Keras backend, its fused programs, and the mode in which models are traced for export."""
