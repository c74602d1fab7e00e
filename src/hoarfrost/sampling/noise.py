"""Gumbel noise that is a pure function of (seed, position, token id), so that sampling does not depend on how it is scheduled.

Adding independent Gumbel noise to log-probabilities and taking the argmax draws an exact sample (Gumbel 1954; Maddison et al. 2014,
arXiv 1411.0030). Keying the noise by position and token makes that sample a function of the request alone: whichever tree, batch or
chunk a position is met in, it gets the same noise.

The generator is counter-based (Salmon et al. 2011): two rounds of the splitmix64 finaliser (Steele, Lea, Flood 2014) over seed,
position and token id, all in wrapping 64-bit arithmetic:

    key  = mix(seed XOR mix(position + 0x9E3779B97F4A7C15))
    bits = mix(key XOR mix(token_id + 0xD1B54A32D192ED03))
    u    = ((bits >> 11) + 0.5) * 2**-53, at most 1 - 2**-53
    g    = -log(-log(u))            in float64, then rounded to float32

float64 matters in the upper tail, where u is so close to 1 that float32 would merge all large values. CPU tensors go to the native
kernel; other devices to the twin in this file, which knows nothing but torch's int64 operations; a device without float64 is served
by the host.
"""

from __future__ import annotations

import torch

from hoarfrost import kernels
from hoarfrost.kernels.noise import ALL_BITS

_POSITION_OFFSET = 0x9E3779B97F4A7C15
_TOKEN_OFFSET = 0xD1B54A32D192ED03
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB
_DEVICES_WITHOUT_FLOAT64 = frozenset({"mps"})


def gumbel_noise(seed: int, position: int, token_ids: torch.Tensor) -> torch.Tensor:
    """The noise of the given tokens at one absolute position.

    Args:
        seed: the request's seed, 0 .. 2**63 - 1.
        position: the position that the token to be chosen will take.
        token_ids: int64 [m].

    Returns:
        float32 [m] on the device of `token_ids`.
    """
    if _on_host(token_ids.device):
        return torch.from_numpy(kernels.gumbel_noise(seed, position, token_ids.cpu().numpy())).to(token_ids.device)
    return gumbel_noise_plain(seed, position, token_ids)


def gumbel_noise_range(seed: int, position: int, vocab_size: int, device: torch.device) -> torch.Tensor:
    """The noise of token ids 0 .. vocab_size - 1 at one absolute position: float32 [vocab_size] on `device`."""
    if _on_host(device):
        return torch.from_numpy(kernels.gumbel_noise_range(seed, position, vocab_size)).to(device)
    return gumbel_noise_plain(seed, position, torch.arange(vocab_size, device=device))


def gumbel_noise_plain(seed: int, position: int, token_ids: torch.Tensor) -> torch.Tensor:
    """`gumbel_noise` in torch operations only: the native kernel's twin, and the path of every other device with float64."""
    uniform = (_shift_right(noise_bits_plain(seed, position, token_ids), 11).to(torch.float64) + 0.5) * 2.0**-53
    uniform.clamp_(max=1 - 2.0**-53)  # the largest of the 2**53 values rounds to 1, where the noise would be infinite
    return uniform.log_().neg_().log_().neg_().to(torch.float32)


def noise_bits_plain(seed: int, position: int, token_ids: torch.Tensor) -> torch.Tensor:
    """The 64 random bits behind each token's noise: int64 [m], to be read as unsigned."""
    key = _mix_integer((seed & ALL_BITS) ^ _mix_integer((position + _POSITION_OFFSET) & ALL_BITS))
    return _mix(_mix(token_ids + _signed(_TOKEN_OFFSET)) ^ _signed(key))


def _on_host(device: torch.device) -> bool:
    return device.type == "cpu" or device.type in _DEVICES_WITHOUT_FLOAT64


def _mix(bits: torch.Tensor) -> torch.Tensor:
    """The splitmix64 finaliser on int64 tensors, whose products wrap as unsigned ones do."""
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_FIRST_FACTOR)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_SECOND_FACTOR)
    return bits ^ _shift_right(bits, 31)


def _mix_integer(bits: int) -> int:
    """The splitmix64 finaliser on one unsigned 64-bit Python integer."""
    bits = ((bits ^ (bits >> 30)) * _FIRST_FACTOR) & ALL_BITS
    bits = ((bits ^ (bits >> 27)) * _SECOND_FACTOR) & ALL_BITS
    return bits ^ (bits >> 31)


def _shift_right(bits: torch.Tensor, num_places: int) -> torch.Tensor:
    """Logical right shift: torch's own is arithmetic, so the copies of the sign bit are masked away."""
    return (bits >> num_places) & ((1 << (64 - num_places)) - 1)


def _signed(unsigned: int) -> int:
    """The int64 with the same bits."""
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
