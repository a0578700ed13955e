"""A data set of encoded images whose splits can be opened."""

import dataclasses


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
