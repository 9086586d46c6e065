"""Tell out-of-distribution images from those like the training images: fit, store, compare."""
