"""Model configs from what a file of weights says and from the shapes of its arrays."""
