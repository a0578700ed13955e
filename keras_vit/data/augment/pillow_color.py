"""Color operations on uint8 images, bit by bit those of Pillow 13.

An image is uint8 `(height, width, 1 or 3)`; every function returns the same type and shape. Arguments may be
tensors, so that they can be drawn. All but the blur also take a batch of images, with one argument for all or
`(batch,)`, one an image. No `tf.where` on pixels: its kernel for bytes costs ten additions.
"""

import tensorflow as tf

from keras_vit.data.augment.xla import compiled, rounded

_GRAY = (19595.0, 38470.0, 7471.0)  # 65536 times the luma weights 0.299, 0.587, 0.114 (Pillow, Convert.c: L24)
_BLUR_PASSES = 3


def _beside(image, value):
    """A scalar, or the values of the images of a batch, in a shape that broadcasts over their pixels."""
    return value if len(image.shape) == 3 else tf.reshape(value, (-1, 1, 1, 1))


def invert(image):
    """`255 - pixel`. Source: Pillow `ImageOps.invert`."""
    return 255 - image


def solarize(image, threshold=128):
    """Inverts the pixels from `threshold` (int, 0 to 256) up. Source: Pillow `ImageOps.solarize`."""
    threshold = _beside(image, tf.cast(threshold, tf.int16))
    above = tf.cast(tf.cast(image, tf.int16) >= threshold, tf.uint8)
    return tf.bitwise.bitwise_xor(image, 255 * above)


def solarize_add(image, addition):
    """Adds `addition` (int, 0 to 255) to the pixels below 128, up to 255. Source: timm `auto_augment.solarize_add`."""
    addition = _beside(image, tf.cast(addition, tf.uint8))
    added = tf.minimum(image, 255 - addition) + addition
    return image + (added - image) * tf.cast(image < 128, tf.uint8)


def posterize(image, bits):
    """Keeps the upper `bits` (int, 0 to 8) of every pixel; with 0 the image is black, where Pillow now raises.

    Source: Pillow `ImageOps.posterize`.
    """
    mask = 256 - tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, _beside(image, tf.cast(mask, tf.uint8)))


@compiled
def autocontrast(image):
    """Stretches every channel to 0 .. 255. Source: Pillow `ImageOps.autocontrast` without its options."""
    extremes = (reduce(image, axis=(-3, -2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    low, high = (tf.cast(extreme, tf.float64) for extreme in extremes)
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1), 1)
    offset = rounded(tf.where(high > low, -low * scale, 0))
    return tf.cast(rounded(tf.cast(image, tf.float64) * scale) + offset, tf.uint8)


@compiled
def equalize(image):
    """Makes the histogram of every channel uniform. Source: Pillow `ImageOps.equalize`."""
    images = image if len(image.shape) == 4 else image[None]
    channels = images.shape[-1]
    histograms = tf.shape(images)[0] * channels
    cells = tf.cast(images, tf.int32) + 256 * tf.reshape(tf.range(histograms), (-1, 1, 1, channels))
    counts = tf.math.unsorted_segment_sum(tf.ones_like(cells), cells, 256 * histograms)
    counts = tf.reshape(counts, (histograms, 256))
    brightest = tf.reshape(tf.cast(tf.reduce_max(images, axis=(1, 2)), tf.int32), [-1])
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, brightest, batch_dims=1))[:, None] // 255
    table = (step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256)[None])
    return tf.reshape(tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), cells), tf.shape(image))


def _gray(image):
    """Pillow's luma, a whole number, as float32 in as many channels as the image has.

    Every sum stays below 2 ** 24, so float32 is exact.
    """
    pixels = tf.cast(image, tf.float32)
    if image.shape[-1] == 1:
        return pixels
    weights = tf.constant([[weight] * 3 for weight in _GRAY])
    return tf.floor((tf.tensordot(pixels, weights, 1) + 32768) / 65536)


def grayscale(image):
    """The luma in every channel. Source: Pillow `convert("L")`, torchvision `Grayscale(3)`."""
    return tf.cast(_gray(image), tf.uint8)


def _blend(degenerate, image, factor):
    """`degenerate + factor * (image - degenerate)`, clipped and truncated, in float32 as Pillow's `Blend.c`."""
    factor = _beside(image, tf.cast(factor, tf.float32))
    pixels = tf.cast(image, tf.float32)
    return tf.cast(tf.clip_by_value(degenerate + rounded(factor * (pixels - degenerate)), 0, 255), tf.uint8)


@compiled
def color(image, factor):
    """Saturation: 0 is gray, 1 the image. Source: Pillow `ImageEnhance.Color`."""
    return _blend(_gray(image), image, factor)


@compiled
def contrast(image, factor):
    """0 is the image's mean luma everywhere, 1 the image. Source: Pillow `ImageEnhance.Contrast`."""
    luma = tf.cast(_gray(image), tf.int64)
    total = tf.reduce_sum(luma, axis=(-3, -2, -1), keepdims=True)
    count = tf.maximum(tf.reduce_prod(tf.shape(luma, tf.int64)[-3:]), 1)
    # Rounded in whole numbers: XLA multiplies by the reciprocal of a constant, which is not the division.
    return _blend(tf.cast((2 * total + count) // (2 * count), tf.float32), image, factor)


def brightness(image, factor):
    """0 is black, 1 the image. Source: Pillow `ImageEnhance.Brightness`."""
    pixels = tf.cast(image, tf.float32)
    return tf.cast(tf.minimum(_beside(image, tf.cast(factor, tf.float32)) * pixels, 255), tf.uint8)


def sharpness(image, factor):
    """0 is smoothed, 1 the image; the border pixels stay. Source: Pillow `ImageEnhance.Sharpness`."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[..., :-2, :, :] + pixels[..., 1:-1, :, :] + pixels[..., 2:, :, :]
    box = rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]
    middle = pixels[..., 1:-1, :, :]
    inner = middle[..., 1:-1, :]
    # A sum of whole numbers over 13 is never near enough to .5 for the rounding of float32 to matter.
    smooth = tf.floor((box + 4 * inner) / 13 + 0.5)
    sharp = tf.clip_by_value(smooth + _beside(image, tf.cast(factor, tf.float32)) * (inner - smooth), 0, 255)
    middle = tf.concat([middle[..., :1, :], sharp, middle[..., -1:, :]], axis=-2)
    return tf.cast(tf.concat([pixels[..., :1, :, :], middle, pixels[..., -1:, :, :]], axis=-3), tf.uint8)


def gaussian_blur(image, radius):
    """Pillow's approximation of a Gaussian: three box filters with fractional edges along each axis.

    Args:
        image: uint8 `(height, width, channels)`.
        radius: float, 0 to 2.4, pixels. The Gaussian's standard deviation.

    Returns:
        uint8 of the same shape.

    Source: Pillow `ImageFilter.GaussianBlur` (BoxBlur.c; Gwosdek et al., "Theoretical foundations of Gaussian
    convolution by extended box filtering", 2011).
    """
    return _blur(image, *_box_weights(tf.cast(radius, tf.float32)))


@compiled
def _blur(image, inner, near, far):
    """Three rounded box filters of five pixels along either axis; beyond the edge the last pixel goes on."""
    pixels = tf.cast(image, tf.uint32)
    for axis in (-2, -3):
        size = image.shape[axis] or tf.shape(image)[axis]
        places = [tf.clip_by_value(tf.range(size) + i, 0, size - 1) for i in range(-2, 3)]

        def box(done, pixels, axis=axis, places=places):
            taps = [tf.gather(pixels, place, axis=axis) for place in places]
            total = inner * taps[2] + near * (taps[1] + taps[3]) + far * (taps[0] + taps[4])
            total = tf.bitwise.right_shift(total + tf.constant(2**23, tf.uint32), tf.constant(24, tf.uint32))
            return done + 1, tf.ensure_shape(total, pixels.shape)

        # A loop, since XLA would compute one pass again for every tap of the next.
        _, pixels = tf.while_loop(lambda done, _: done < _BLUR_PASSES, box, (0, pixels))
    return tf.cast(pixels, tf.uint8)


def _box_weights(radius):
    """uint32 weights, 2 ** 24 together, of a pixel, of its neighbors and of theirs."""
    variance = radius * radius / _BLUR_PASSES
    length = tf.cast(tf.sqrt(12 * tf.cast(variance, tf.float64) + 1), tf.float32)
    whole = tf.floor((length - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = tf.cast(2**24 / ((whole + edge) * 2 + 1), tf.int64)
    outer = (2**24 - (2 * tf.cast(whole, tf.int64) + 1) * inner) // 2
    # With a radius below one the neighbors are the box's edge, else they belong to its inside.
    near = tf.where(whole > 0, inner, outer)
    far = tf.where(whole > 0, outer, 0)
    return [tf.cast(weight, tf.uint32) for weight in (inner, near, far)]
