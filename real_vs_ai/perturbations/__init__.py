"""Change images as the web does, at random as their histories did, and by affine warps."""
