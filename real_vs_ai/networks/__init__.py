"""Define the networks behind the backbones, as plain Keras layers."""
