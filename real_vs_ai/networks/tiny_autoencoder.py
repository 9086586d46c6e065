"""Pass images through FLUX.2's tiny autoencoder TAEF2 (github.com/madebyollin/taesd, MIT).

An encoder reduces an image eight times to 32 maps, a decoder makes an image of these again. Both
are residual blocks of 3 × 3 convolutions with 64 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from real_vs_ai.errors import InputError

_HINT = "Use the weights that github.com/madebyollin/taesd publishes."
# A residual block, where "pooled" also adds a normalised projection of its input.
_BLOCK, _POOLED = "block", "pooled"
# One entry for each numbered layer of the published files; "" has no weights of its own.
_ENCODER = (
    *("convolution", _BLOCK),
    *("halve", _BLOCK, _BLOCK, _BLOCK) * 2,
    *("halve", _POOLED, _POOLED, _POOLED, "convolution"),
)
_DECODER = (
    *("bound", "convolution", "relu", _POOLED, _POOLED, _POOLED),
    *("double", "plain convolution", _BLOCK, _BLOCK, _BLOCK) * 2,
    *("double", "plain convolution", _BLOCK, "convolution"),
)
# Latents are bounded to ±3 before they are decoded.
_BOUND = 3.0
_GROUPS = 4
_layers = keras.layers


def open_autoencoder(
    encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that encodes and decodes one image.

    It takes and gives pixels of shape (height, width, 3), uint8, with sides that are multiples of
    8.

    Args:
        encoder: State dict of the published encoder.
        decoder: That of the decoder.

    Raises:
        InputError: One is of another network, or holds numbers that are not finite.
    """
    model = tiny_autoencoder(encoder, decoder)

    def reconstruct(pixels: np.ndarray) -> np.ndarray:
        scaled = np.asarray(model.predict_on_batch(pixels[None] / np.float32(255.0)))[0]
        return np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)

    return reconstruct


def tiny_autoencoder(
    encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray]
) -> keras.Model:
    """Build the two halves of their state dicts, which also give the numbers of channels.

    Returns:
        A model from images (batch, height, width, 3), 0 to 1, to images alike, not clipped.

    Raises:
        InputError: A state dict is of another network, or holds numbers that are not finite.
    """
    inputs = keras.Input((None, None, 3))
    latents = _build(inputs, encoder, _ENCODER, half="encoder")
    outputs = _build(latents, decoder, _DECODER, half="decoder")
    if outputs.shape[-1] != 3:
        raise InputError(f"Expected a decoder of 3 colours, found {outputs.shape[-1]}. {_HINT}")
    model = keras.Model(inputs, outputs, name="tiny_autoencoder")
    # Images come in many sizes: compiling for each would take longer than it saves.
    model.compile(jit_compile=False)
    return model


def _build(x: Any, state: Mapping[str, np.ndarray], plan: tuple[str, ...], *, half: str) -> Any:
    weights = {name: np.asarray(array, np.float32) for name, array in state.items()}
    try:
        for number, kind in enumerate(plan):
            x = _layer(x, kind, str(number), weights)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"Expected the {half} of TAEF2, found another network ({error}). {_HINT}"
        ) from error
    if weights:
        raise InputError(
            f"Expected the {half} of TAEF2, found {next(iter(weights))} as well. {_HINT}"
        )
    return x


def _layer(x: Any, kind: str, name: str, weights: dict[str, np.ndarray]) -> Any:
    if kind in (_BLOCK, _POOLED):
        return _block(x, name, weights, pooled=kind == _POOLED)
    if kind == "halve":
        # The published network pads both sides; "same" would pad only the far ones.
        x = _layers.ZeroPadding2D(1)(x)
        return _convolution(x, name, weights, bias=False, strides=2, padding="valid")
    if kind == "double":
        return _layers.UpSampling2D(2)(x)
    if kind == "relu":
        return _layers.ReLU()(x)
    if kind == "bound":
        return _layers.Rescaling(_BOUND)(
            _layers.Activation("tanh")(_layers.Rescaling(1 / _BOUND)(x))
        )
    return _convolution(x, name, weights, bias=kind == "convolution")


def _block(x: Any, name: str, weights: dict[str, np.ndarray], *, pooled: bool) -> Any:
    if pooled:
        y = _convolution(x, f"{name}.pool.0", weights, bias=False, kernel=1)
        norm = _layers.GroupNormalization(_GROUPS, epsilon=1e-5)
        y = _fill(norm, y, [weights.pop(f"{name}.pool.1.{part}") for part in ("weight", "bias")])
        y = _convolution(_layers.ReLU()(y), f"{name}.pool.3", weights, bias=False, kernel=1)
        x = _layers.Add()([x, y])
    y = x
    for position in (0, 2, 4):
        y = _convolution(y, f"{name}.conv.{position}", weights)
        y = _layers.ReLU()(y) if position < 4 else y
    return _layers.ReLU()(_layers.Add()([x, y]))


def _convolution(
    x: Any,
    name: str,
    weights: dict[str, np.ndarray],
    *,
    bias: bool = True,
    kernel: int = 3,
    **options: Any,
) -> Any:
    arrays = [weights.pop(f"{name}.weight").transpose(2, 3, 1, 0)]
    if bias:
        arrays.append(weights.pop(f"{name}.bias"))
    layer = _layers.Conv2D(
        arrays[0].shape[-1], kernel, use_bias=bias, **{"padding": "same", **options}
    )
    return _fill(layer, x, arrays)


def _fill(layer: Any, x: Any, arrays: list[np.ndarray]) -> Any:
    """The layer laid on `x`, with these weights."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("weights that are not finite")
    y = layer(x)
    layer.set_weights(arrays)
    return y
