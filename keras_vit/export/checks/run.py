"""Runs the checks of an exported SavedModel."""

import dataclasses
import pathlib

from keras_vit.export.checks import answers as check_answers
from keras_vit.export.checks import classes as check_classes
from keras_vit.export.checks import files as check_files
from keras_vit.export.checks import operations as check_operations
from keras_vit.export.checks import pixels as check_pixels
from keras_vit.export.checks import signatures as check_signatures
from keras_vit.export.checks import structure as check_structure
from keras_vit.export.checks.base import CheckFailed, Exported, NotApplicable, Result
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
    ("batch equals rows", check_answers.batch_equals_rows),
    ("repeatable", check_answers.answers_are_repeated),
    ("JSON", check_answers.answers_become_json),
    ("scores", check_classes.scores_are_sorted),
    ("labels", check_classes.labels_are_right),
    ("bad images", check_classes.bad_images_are_marked),
    ("strict", check_classes.bad_images_fail_in_strict),
    ("equals Keras", check_pixels.outputs_equal_keras),
    ("equals Pillow", check_pixels.bytes_are_prepared_as_by_pillow),
    ("warm-up", check_files.warm_up_records_run),
    ("server files", check_files.the_configuration_parses),
)


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of all checks.

    Args:
        path: `pathlib.Path` of the version.
        results: tuple of `Result`.
    """

    path: pathlib.Path
    results: tuple

    @property
    def failed(self):
        """list of `Result`. The failed checks."""
        return [result for result in self.results if result.passed is False]


def check(path, model=None, images=()):
    """Checks a version of a SavedModel: structure, signatures, answers, server files.

    It is loaded into this process, and a SavedModel is a program: check only those that you trust.

    Args:
        path: of a version, such as `saved_models/flowers/1`, or of a folder of versions, of which the highest is used.
        model: the `keras.Model` that was exported, for its logits and the size of its weights; or `None`.
        images: paths of images to test with; without them images are synthetic.

    Returns:
        A `Report`. A check that raises has failed, with the error as its finding.

    Raises:
        ValueError: if there is no SavedModel.
    """
    exported = Exported(newest(path), model, images)
    return Report(exported.path, tuple(run(name, function, exported) for name, function in CHECKS))


def run(name, function, exported):
    """Runs one check and returns its `Result`."""
    try:
        return Result(name, True, function(exported))
    except CheckFailed as finding:
        return Result(name, False, str(finding))
    except NotApplicable as reason:
        return Result(name, None, str(reason))
    except Exception as error:  # A broken SavedModel may raise anything; the other checks continue.
        text = " ".join(str(error).split())
        return Result(name, False, f"{type(error).__name__}: {text[:300]}")
