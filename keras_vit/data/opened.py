"""A data set of encoded images whose splits can be opened."""

import dataclasses

from keras_vit.data.stream import NamedBytes


@dataclasses.dataclass(frozen=True)
class Opened:
    """What TFDS and TFRecords have in common.

    Args:
        name: str.
        class_names: tuple of str.
        num_channels: int.
        encoded: callable `split name -> EncodedShards`.
    """

    name: str
    class_names: tuple
    num_channels: int
    encoded: object

    def examples(self, split):
        """An iterator of `(encoded image as a file, label)`, and how many there are."""
        encoded = self.encoded(split)
        return ((NamedBytes(data, name), label) for name, data, label in encoded.examples()), len(encoded)
