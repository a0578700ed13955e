"""The commands of `keras_vit`."""
