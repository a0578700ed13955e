"""Checks of operations: a list of TensorFlow's core operations without side effects is allowed."""

from keras_vit.export.checks.base import NotApplicable, require

# What models compute with, and what is made of them: any layer of Keras.
_NUMBERS = """
Abs Add AddN AddV2 All Any ArgMax ArgMin AvgPool BatchMatMulV2 BatchMatMulV3 BiasAdd Bitcast BitwiseAnd BroadcastArgs
BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D Cos Cumsum CumulativeLogsumexp DepthwiseConv2dNative
DiagPart Div DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod
FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN InvertPermutation IsFinite IsNan
L2Loss LeakyRelu LeftShift Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul
MatrixBandPart MatrixDiagV3 Max MaxPool MaxPoolV2 Maximum Mean Min Minimum Mul MulNoNan Neg NotEqual OneHot OnesLike
Pack Pad PadV2 Pow Prod Range Rank RealDiv Reciprocal Relu Relu6 Reshape Reverse ReverseV2 RightShift Roll Round Rsqrt
ScatterNd Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Size Slice Snapshot Softmax Softplus Softsign Split SplitV
Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh TensorScatterUpdate Tile TopKV2 Transpose
TruncateDiv TruncateMod Unpack Where ZerosLike
"""
# Images, text and the examples of the Classify interface.
_IMAGES = """
AdjustContrastv2 AsString CropAndResize DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeRaw
DecodePaddedRaw DecodeWebP ExtractJpegShape ParseExampleV2 ParseSingleExample ReduceJoin RegexFullMatch ResizeArea
ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate StaticRegexFullMatch StringFormat StringJoin
StringLength StringSplitV2 StringToNumber Substr
"""
# Control flow, datasets of rows in memory, and lists of tensors.
_FLOW = """
Assert BatchDatasetV2 Case ConcatenateDataset DatasetToSingleElement Enter Exit FilterDataset IgnoreErrorsDataset If
LoopCond MapDataset Merge NextIteration NoOp OptionsDataset ParallelMapDatasetV2 PartitionedCall Placeholder
PlaceholderWithDefault PreventGradient StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile Switch
TensorDataset TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength
TensorListPushBack TensorListReserve TensorListResize TensorListSetItem TensorListStack TensorSliceDataset While
"""
# Variables, and how a SavedModel reads and writes its own checkpoint: the name of a file comes from the loader alone.
_WEIGHTS = """
AssignVariableOp DisableCopyOnRead MergeV2Checkpoints ReadVariableOp RestoreV2 SaveV2 ShardedFilename VarHandleOp
VarIsInitializedOp
"""
_JPEG_DECODERS, _EXACT_DCT = ("DecodeJpeg", "DecodeAndCropJpeg"), "INTEGER_ACCURATE"
ALLOWED = frozenset(" ".join((_NUMBERS, _IMAGES, _FLOW, _WEIGHTS)).split())


def operations_are_allowed(exported):
    """Checks that the graph has only allowed operations: no Python, file access or custom operations."""
    found = {}
    for node in exported.nodes():
        found.setdefault(node.op, node.name)
    functions = {function.signature.name for function in exported.graph.graph_def.library.function}
    others = sorted(set(found) - ALLOWED - functions)
    require(not others, ", ".join(f"{name} ({found[name]})" for name in others[:5]))
    return f"{len(found)} kinds"


def jpegs_are_decoded_whole_and_exactly(exported):
    """Checks that JPEG decoders reject truncated files (`try_recover_truncated` may hang) and use Pillow's DCT."""
    decoders = [node for node in exported.nodes() if node.op in _JPEG_DECODERS]
    for node in decoders:
        recovers = "try_recover_truncated" in node.attr and node.attr["try_recover_truncated"].b
        require(not recovers, f"{node.name} has try_recover_truncated=True")
        method = node.attr["dct_method"].s.decode() if "dct_method" in node.attr else ""
        require(method == _EXACT_DCT, f"{node.name} has dct_method={method!r}, not {_EXACT_DCT!r}")
    if not decoders:
        raise NotApplicable("it has no decoder of JPEGs alone")
    return f"{len(decoders)} decoders"


def nothing_must_be_compiled(exported):
    """Checks that no function requires XLA, which servers disable."""
    library = exported.graph.graph_def.library.function
    attributes = [(node.name, node.attr) for node in exported.nodes()]
    attributes += [(function.signature.name, function.attr) for function in library]
    for name, values in attributes:
        require(not ("_XlaMustCompile" in values and values["_XlaMustCompile"].b), f"{name} must be compiled by XLA")
    return "nothing must be compiled"
