#!/usr/bin/env python3
"""Writes tests/data/dequant/TYPE.{blocks,f32}: random blocks of each GGUF type and what the package `gguf` makes of them.

  make_dequant_golden.py --out tests/data/dequant        needs numpy, gguf (made with gguf 0.19.0)

TYPE.blocks holds 2 rows, TYPE.f32 the same rows as little-endian float32. All bits of a block are random but for the half floats
in it, which are finite (so that no product is NaN); F16 and BF16 also hold zeros, subnormals, infinities and the largest values.
"""
import argparse
import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Byte offsets of the half floats in a block.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
ROWS = 2


def blocks_of(kind, rng):
    elements, size = GGML_QUANT_SIZES[kind]
    if kind == T.F32:
        return rng.standard_normal((ROWS, 64)).astype("<f4").view(np.uint8)
    if kind in (T.F16, T.BF16):
        special = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7F80, 0xFF80, 0x3C00]
        words = rng.integers(0, 1 << 16, (ROWS, 64), dtype=np.uint16)
        limit = 0x7C00 if kind == T.F16 else 0x7F80
        words = np.where((words & 0x7FFF) > limit, words & 0x3FFF, words).astype("<u2")
        words[0, : len(special)] = [w for w in special]
        if kind == T.F16:
            words[0, 9:11] = [0x0200, 0x8200]  # those two are NaN in half precision
        return words.view(np.uint8)
    per_row = max(1, 128 // elements)
    raw = rng.integers(0, 256, (ROWS, per_row, size), dtype=np.uint8)
    for at in HALVES[kind]:
        halves = rng.standard_normal((ROWS, per_row)).astype("<f2")
        halves[0, 0] = np.float16(6e-8)  # a subnormal
        raw[:, :, at : at + 2] = halves[..., None].view(np.uint8)
    return raw.reshape(ROWS, -1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng(20240607)
    for kind in (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
        raw = np.ascontiguousarray(blocks_of(kind, rng))
        raw.tofile(os.path.join(out, kind.name + ".blocks"))
        np.ascontiguousarray(dequantize(raw, kind)).astype("<f4").tofile(os.path.join(out, kind.name + ".f32"))


if __name__ == "__main__":
    main()
