"""Initial weights: schemes of published recipes, and the weights of other models."""
