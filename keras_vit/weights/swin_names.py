"""The words of the sources for the parts of a Swin Transformer."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Names:
    """A source's words, below a prefix, for the parts of a Swin Transformer."""

    patches: str
    embedding_norm: str
    stages: str
    norms: tuple
    attention: str
    projection: str
    mlp: tuple
    biases: tuple
    coordinates: str
    final_norm: str


OFFICIAL = Names(
    patches="patch_embed.proj",
    embedding_norm="patch_embed.norm",
    stages="layers",
    norms=("norm1", "norm2"),
    attention="attn",
    projection="attn.proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    biases=("q_bias", "v_bias"),
    coordinates="cpb_mlp",
    final_norm="norm",
)
HUGGINGFACE = Names(
    patches="embeddings.patch_embeddings.projection",
    embedding_norm="embeddings.norm",
    stages="encoder.layers",
    norms=("layernorm_before", "layernorm_after"),
    attention="attention.self",
    projection="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
    biases=("query.bias", "value.bias"),
    coordinates="continuous_position_bias_mlp",
    final_norm="layernorm",
)
