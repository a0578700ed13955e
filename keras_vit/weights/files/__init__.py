"""Files of weights of every format as lazy mappings from key to array."""
