"""Why a model answers as it does: explanations of classes, attention, positions, filters, tokens."""

from keras_vit.interpret.attention import attention_maps, attention_model
from keras_vit.interpret.faithfulness import deletion_curve, insertion_curve, pointing_game
from keras_vit.interpret.grad_cam import grad_cam
from keras_vit.interpret.model_views import attention_distance, patch_filters, position_similarity
from keras_vit.interpret.pixel_gradients import integrated_gradients, pixel_heat_map, smooth_grad
from keras_vit.interpret.relevance import relevance, relevance_matrix
from keras_vit.interpret.rollout import rollout, rollout_model
from keras_vit.interpret.token_views import TokenPCA, cosine_map, token_pca

__all__ = [
    "TokenPCA",
    "attention_distance",
    "attention_maps",
    "attention_model",
    "cosine_map",
    "deletion_curve",
    "grad_cam",
    "insertion_curve",
    "integrated_gradients",
    "patch_filters",
    "pixel_heat_map",
    "pointing_game",
    "position_similarity",
    "relevance",
    "relevance_matrix",
    "rollout",
    "rollout_model",
    "smooth_grad",
    "token_pca",
]
