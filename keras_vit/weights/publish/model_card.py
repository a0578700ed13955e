"""Writes model cards: the model, its preprocessing, and its accuracy with the source."""

_TEMPLATE = """# {name}

{summary}

| | |
|---|---|
| parameters | {parameters:,} |
| image size | {height} x {width}, {channels} channels |
| preprocessing | {preprocessing} |
| classes | {classes} |
| license | {license} |
| paper | {paper} |
{accuracy}
## Use

```python
import keras_vit

model = {load}
image = keras_vit.metadata(model).input_spec.load("photo.jpg")
{result}
```
{more}"""
_ACCURACY = """
## Accuracy

| data | top-1, published | top-1, measured with keras_vit |
|---|---|---|
| {data} | {published} | {measured} |

Measure it with:

```
{command}
```
"""
_DECODED = "print(keras_vit.decode_predictions(model.predict(image[None]), model=model))"
_REPRESENTATION = "representation = model.predict(image[None])"
NO_CLASSES = "none: a representation, no classes"
_TIMM = """
The same files in PyTorch:

```python
import timm

model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()
```
"""


def describe_input(spec):
    """Describes an `InputSpec` in words."""
    height, width = spec.size
    resizing = (
        f"the whole image squashed to {height} x {width}"
        if spec.crop_fraction is None
        else f"resized to cover {' x '.join(map(str, spec.resized_size(spec.size)))}, center of {height} x {width}"
    )
    return f"{resizing}, {spec.interpolation}; mean {_numbers(spec.mean)}, std {_numbers(spec.std)} of pixels 0 .. 1"


def _numbers(values):
    return ", ".join(f"{value:g}" for value in values)


def front_matter(license_id, has_classes=True):
    """Returns the YAML metadata of a card for the Hub; without a license if it is unknown.

    Args:
        license_id: str or `None`. SPDX identifier.
        has_classes: bool. Whether the output counts classes.
    """
    from huggingface_hub import ModelCardData

    task = "image-classification" if has_classes else "image-feature-extraction"
    data = ModelCardData(
        license=license_id,
        library_name="timm",
        pipeline_tag=task,
        tags=["keras", "keras-vit", task, "vision-transformer"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def model_card(
    name,
    config,
    input_spec,
    parameters,
    *,
    summary="",
    license_id=None,
    paper=None,
    has_classes=True,
    published=None,
    measured=None,
    data="ImageNet-1k, validation",
    command="",
    load,
    repository=None,
):
    """Writes a card as Markdown.

    Args:
        name: str. The model's name.
        config: its config.
        input_spec: its `InputSpec`.
        parameters: int.
        summary: str. The model and its training data in a sentence.
        license_id, paper: str or `None`.
        has_classes: bool. Whether the output counts classes. Without classes the card states no accuracy,
            and the arguments for it are not used. Default True.
        published: str or `None`. Accuracy stated by its authors, with the source.
        measured: str or `None`. Accuracy as measured with this library.
        data: str. Data set of the accuracies.
        command: str. Command that measures the accuracy.
        load: str. Python expression that loads the model.
        repository: `organization/name` on the Hub for the section on timm, or `None`.

    Returns:
        str.
    """
    height, width = config.image_size
    accuracy = _ACCURACY.format(
        data=data,
        published=published or "not published",
        measured=measured or "not measured here",
        command=command,
    )
    return _TEMPLATE.format(
        name=name,
        summary=summary or "A Vision Transformer.",
        parameters=parameters,
        height=height,
        width=width,
        channels=config.num_channels,
        preprocessing=describe_input(input_spec),
        classes=config.num_classes if has_classes else NO_CLASSES,
        license=license_id or "not given",
        paper=paper or "not given",
        accuracy=accuracy if has_classes else "",
        load=load,
        result=_DECODED if has_classes else _REPRESENTATION,
        more=_TIMM.format(repository=repository) if repository else "",
    )
