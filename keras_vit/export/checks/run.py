"""`keras_vit check`: whether a SavedModel keeps what the exports of this library promise."""

import dataclasses
import pathlib

from keras_vit.export.checks import answers as check_answers
from keras_vit.export.checks import classes as check_classes
from keras_vit.export.checks import files as check_files
from keras_vit.export.checks import operations as check_operations
from keras_vit.export.checks import pixels as check_pixels
from keras_vit.export.checks import signatures as check_signatures
from keras_vit.export.checks import structure as check_structure
from keras_vit.export.checks.base import DoesNotApply, Exported, NotMet, Result
from keras_vit.export.versions import newest

CHECKS = (
    ("version", check_structure.version_is_an_integer),
    ("one graph for serving", check_structure.one_graph_for_serving),
    ("fingerprint", check_structure.has_a_fingerprint),
    ("operations", check_operations.operations_are_allowed),
    ("JPEG decoders", check_operations.jpegs_are_decoded_whole_and_exactly),
    ("no XLA", check_operations.nothing_must_be_compiled),
    ("small constants", check_structure.constants_are_small),
    ("weights stored once", check_structure.weights_are_stored_once),
    ("no paths", check_structure.no_path_of_a_machine),
    ("signatures", check_signatures.signatures_are_as_promised),
    ("embeddings", check_signatures.embeddings_have_unit_length),
    ("explain", check_signatures.explains_or_says_why_not),
    ("Classify", check_signatures.classify_keeps_its_contract),
    ("batches", check_answers.answers_every_batch),
    ("batch equals rows", check_answers.a_batch_equals_its_rows),
    ("repeatable", check_answers.answers_are_repeated),
    ("JSON", check_answers.answers_become_json),
    ("scores", check_classes.scores_are_sorted),
    ("labels", check_classes.labels_are_right),
    ("bad images", check_classes.a_bad_image_is_told),
    ("strict", check_classes.a_bad_image_is_an_error_in_strict),
    ("equals Keras", check_pixels.outputs_equal_keras),
    ("equals Pillow", check_pixels.bytes_are_prepared_as_by_pillow),
    ("warm-up", check_files.warm_up_records_run),
    ("server files", check_files.the_configuration_parses),
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What all checks have found.

    Args:
        path: `pathlib.Path` of the version.
        results: tuple of `Result`.
    """

    path: pathlib.Path
    results: tuple

    @property
    def failed(self):
        """The results of the checks that are not met."""
        return [result for result in self.results if result.passed is False]


def check(path, model=None, images=()):
    """Examines a version of a SavedModel: structure, signatures, answers, files beside it.

    It is loaded into this process, and a SavedModel is a program: examine none that you would not run.

    Args:
        path: of a version, such as `saved_models/flowers/1`, or of a folder of versions, whose highest is taken.
        model: the `keras.Model` that was exported, for its logits and the size of its weights; or `None`.
        images: paths of images to try it with, of formats that every export takes; without them images are drawn.

    Returns:
        A `Report`. A check that raises has failed, with the error as its finding.

    Raises:
        ValueError: if there is no SavedModel.
    """
    exported = Exported(newest(path), model, images)
    return Report(exported.path, tuple(run(name, function, exported) for name, function in CHECKS))


def run(name, function, exported):
    """The `Result` of one check."""
    try:
        return Result(name, True, function(exported))
    except NotMet as finding:
        return Result(name, False, str(finding))
    except DoesNotApply as reason:
        return Result(name, None, str(reason))
    except Exception as error:  # whatever a broken SavedModel makes of a check, the others go on
        text = " ".join(str(error).split())
        return Result(name, False, f"{type(error).__name__}: {text[:300]}")
