"""The tiny autoencoder computes what the published network does."""

import numpy as np
import pytest

from real_vs_ai.errors import InputError
from real_vs_ai.networks.torch_networks import open_autoencoder, tiny_autoencoder
from tests.test_torch_files import write_archive

WIDTH, LATENTS = 8, 4
# Numbers of the residual blocks in the published files, those with a pool, and the other layers.
BLOCKS = {"encoder": (1, 3, 4, 5, 7, 8, 9), "decoder": (8, 9, 10, 13, 14, 15, 18)}
POOLED = {"encoder": (11, 12, 13), "decoder": (3, 4, 5)}
PLAIN = {"encoder": (2, 6, 10), "decoder": (7, 12, 17)}
ENDS = {
    "encoder": {0: (3, WIDTH), 14: (WIDTH, LATENTS)},
    "decoder": {1: (LATENTS, WIDTH), 19: (WIDTH, 3)},
}


def random_state(half, *, seed=0):
    """A state dict of the published names, narrow, with random numbers."""
    random = np.random.default_rng(seed)
    state = {}

    def add(name, entering, leaving, *, kernel=3, bias=True):
        scale = 1 / np.sqrt(entering * kernel**2)
        shape = (leaving, entering, kernel, kernel)
        state[f"{name}.weight"] = random.normal(0, scale, shape).astype(np.float16)
        if bias:
            state[f"{name}.bias"] = random.normal(0, 0.2, leaving).astype(np.float16)

    for number, (entering, leaving) in ENDS[half].items():
        add(number, entering, leaving)
    for number in PLAIN[half]:
        add(number, WIDTH, WIDTH, bias=False)
    for number in BLOCKS[half] + POOLED[half]:
        for position in (0, 2, 4):
            add(f"{number}.conv.{position}", WIDTH, WIDTH)
    for number in POOLED[half]:
        add(f"{number}.pool.0", WIDTH, 4 * WIDTH, kernel=1, bias=False)
        add(f"{number}.pool.3", 4 * WIDTH, WIDTH, kernel=1, bias=False)
        for part in ("weight", "bias"):
            state[f"{number}.pool.1.{part}"] = random.normal(1, 0.3, 4 * WIDTH).astype(np.float16)
    return state


class Reference:
    """The published network in NumPy, for one image of shape (height, width, channels)."""

    def __init__(self, state):
        self.state = {name: array.astype(np.float64) for name, array in state.items()}

    def conv(self, x, name, stride=1):
        weight = self.state[f"{name}.weight"]
        edge = weight.shape[-1] // 2
        x = np.pad(x, ((edge, edge), (edge, edge), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(0, 1))
        y = np.einsum("hwcij,ocij->hwo", windows[::stride, ::stride], weight)
        return y + self.state.get(f"{name}.bias", 0)

    def block(self, x, name):
        if f"{name}.pool.0.weight" in self.state:
            y = self.conv(x, f"{name}.pool.0")
            groups = y.reshape(*y.shape[:2], 4, -1)
            centred = groups - groups.mean(axis=(0, 1, 3), keepdims=True)
            deviation = np.sqrt((centred**2).mean(axis=(0, 1, 3), keepdims=True) + 1e-5)
            y = (centred / deviation).reshape(y.shape) * self.state[f"{name}.pool.1.weight"]
            y = np.maximum(y + self.state[f"{name}.pool.1.bias"], 0)
            x = x + self.conv(y, f"{name}.pool.3")
        y = np.maximum(self.conv(x, f"{name}.conv.0"), 0)
        y = np.maximum(self.conv(y, f"{name}.conv.2"), 0)
        return np.maximum(x + self.conv(y, f"{name}.conv.4"), 0)

    def encode(self, x):
        x = self.block(self.conv(x, 0), 1)
        for first in (2, 6, 10):
            x = self.conv(x, first, stride=2)
            for number in range(first + 1, first + 4):
                x = self.block(x, number)
        return self.conv(x, 14)

    def decode(self, x):
        x = np.maximum(self.conv(3 * np.tanh(x / 3), 1), 0)
        for last in (7, 12, 17):
            for number in range(last - 4, last - 1):
                x = self.block(x, number)
            x = self.conv(x.repeat(2, axis=0).repeat(2, axis=1), last)
        return self.conv(self.block(x, 18), 19)


def test_network_computes_what_the_published_one_does():
    encoder, decoder = random_state("encoder"), random_state("decoder", seed=1)
    pixels = np.random.default_rng(2).random((16, 40, 3))
    expected = Reference(decoder).decode(Reference(encoder).encode(pixels))
    model = tiny_autoencoder(encoder, decoder)
    found = np.asarray(model.predict_on_batch(pixels[None].astype(np.float32)))[0]
    assert expected.std() > 0.1
    assert found == pytest.approx(expected, abs=1e-3)


def test_images_of_any_size_keep_it_and_give_whole_pixels(tmp_path):
    for half in ("encoder", "decoder"):
        write_archive(tmp_path / f"taef2_{half}.pth", random_state(half))
    reconstruct = open_autoencoder(tmp_path)
    for height, width in ((8, 16), (24, 8)):
        pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
        remade = reconstruct(pixels)
        assert (remade.shape, remade.dtype) == (pixels.shape, np.uint8)
        assert np.array_equal(remade, reconstruct(pixels))


def broken_states():
    """(encoder, decoder), one of them of another network; most fail before much is built."""
    encoder, decoder = random_state("encoder"), random_state("decoder")
    yield {}, decoder
    yield decoder, decoder
    yield {name: array for name, array in encoder.items() if name != "1.conv.4.bias"}, decoder
    yield {**encoder, "1.conv.0.weight": encoder["1.conv.0.weight"] * np.float16(np.nan)}, decoder
    yield {**encoder, "2.weight": encoder["2.weight"][:, :2]}, decoder
    yield {**encoder, "20.weight": encoder["0.weight"]}, decoder
    ends = {name: decoder[name][:1] for name in ("19.weight", "19.bias")}
    yield encoder, {**decoder, **ends}


@pytest.mark.parametrize("states", list(broken_states()))
def test_another_network_is_refused_in_one_line(states):
    with pytest.raises(InputError, match=r"Expected (the|a) .*coder of") as error:
        tiny_autoencoder(*states)
    assert "\n" not in str(error.value)
