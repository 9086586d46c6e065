import torch
from torch.nn import functional as nn


def conv(s: dict[str, torch.Tensor], x: torch.Tensor, at: str, bn: str, **how: int) -> torch.Tensor:
    of = (s[f"{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return nn.batch_norm(nn.conv2d(x, s[f"{at}.weight"], **how), *of)


@torch.inference_mode()
def predict(s: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Probabilities of RGB pixels, 0 to 255, (n, size, size, 3), by `torch.load(path)` as s."""
    x = pixels.permute(0, 3, 1, 2).float() + s["input.offset"][:, None, None]
    x = nn.interpolate(x, scale_factor=float(s["input.enlarge"]), mode="bilinear")
    maps = {"conv1": conv(s, x, "conv1", "bn1", stride=int(s["input.stride"]), padding=3).relu()}
    x = nn.max_pool2d(maps["conv1"], 3, int(s["pool.stride"]), padding=1)
    for b in (key.removesuffix(".conv1.weight") for key in s if key.endswith(".conv1.weight")):
        by = 2 if b in ("layer2.0", "layer3.0", "layer4.0") else 1
        y = conv(s, x, f"{b}.conv1", f"{b}.bn1", stride=by).relu()
        y = conv(s, y, f"{b}.conv2", f"{b}.bn2", padding=1).relu()
        if b.endswith(".0"):
            x = conv(s, x, f"{b}.downsample.0", f"{b}.downsample.1", stride=by)
        x = maps[b[:6]] = (x + conv(s, y, f"{b}.conv3", f"{b}.bn3")).relu()
    x = nn.avg_pool2d(x, s["head.pool"].tolist()).flatten(1)
    if "head.mean" in s:
        x = torch.cat([f for m in maps.values() for f in (m.mean((2, 3)), m.std((2, 3), False))], 1)
        x = ((x - s["head.mean"]) / s["head.deviation"]).clamp(-6, 6) * s["head.scale"]
    if "head.dense.weight" in s:
        x = nn.linear(x, s["head.dense.weight"], s["head.dense.bias"]).relu()
    return nn.linear(x, s["head.probabilities.weight"], s["head.probabilities.bias"]).softmax(1)
