"""The networks that backbones are made of, as plain Keras layers."""
