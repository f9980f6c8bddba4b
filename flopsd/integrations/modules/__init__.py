"""PyTorch modules: hooks on them, their products with weights, and the state that determines these."""
