#!/usr/bin/env python3
"""Makes cases.json: what the presses of NVIDIA's kvpress keep of given queries, keys and values. tests/policies/retain/kvpress_test.cc
gives the same to our functions.

  python3 -m venv build/kvpress && build/kvpress/bin/pip install kvpress==0.5.5 torch transformers
  build/kvpress/bin/python tests/data/kvpress/make_cases.py [OUT]

No model is needed: a press reads its queries through `q_proj` of the attention module, which is the identity here, and turns them
by the cosines and sines that it is given: one and zero. Kept rows are found again by their keys.
"""

import base64
import importlib.metadata
import json
import os
import sys
from types import SimpleNamespace

import kvpress
import torch

HEADS, KV_HEADS, TOKENS, HEAD_DIM, LAYERS = 6, 2, 160, 16, 6
ROPE_BASE = 10000.0


def tensor(values):
    array = values.to(torch.float32).contiguous().numpy().astype("<f4")
    return {"shape": list(array.shape), "f32": base64.b64encode(array.tobytes()).decode()}


class Input:
    """Queries that look at some of the keys much more than at others, as those of a model do."""

    def __init__(self, seed):
        random = torch.Generator().manual_seed(seed)
        self.q = 1.5 * torch.randn(HEADS, TOKENS, HEAD_DIM, generator=random)
        self.k = torch.randn(KV_HEADS, TOKENS, HEAD_DIM, generator=random)
        self.v = torch.randn(KV_HEADS, TOKENS, HEAD_DIM, generator=random)
        self.k[1] *= 1.4  # heads differ in how much they concentrate: Ada-KV has something to share out

    def to_json(self):
        return {"q": tensor(self.q), "k": tensor(self.k), "v": tensor(self.v)}


def rotary_embedding(_, positions):
    pairs = torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM
    angles = positions[..., None].float() * ROPE_BASE**-pairs
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def module_of(layer=0):
    config = SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, num_hidden_layers=LAYERS,
                             _attn_implementation="sdpa")
    return SimpleNamespace(config=config, head_dim=HEAD_DIM, q_proj=lambda x: x, layer_idx=layer, rotary_emb=rotary_embedding,
                           masked_key_indices=None)


def hidden_of(given):
    return given.q.transpose(0, 1).reshape(1, TOKENS, HEADS * HEAD_DIM)


def positions_of(given):
    unturned = torch.ones(1, TOKENS, HEAD_DIM), torch.zeros(1, TOKENS, HEAD_DIM)
    return {"position_embeddings": unturned}


def kept_by(press, given, layer=0):
    """Positions that each kv head keeps, ascending."""
    module = module_of(layer)
    keys, _ = press.compress(module, hidden_of(given), given.k[None].clone(), given.v[None].clone(), None, positions_of(given))
    kept = []
    for head in range(KV_HEADS):
        if module.masked_key_indices is not None:  # Ada-KV hides rows and leaves them where they are
            _, heads, rows = module.masked_key_indices
            hidden = set(rows[heads == head].tolist())
            kept.append([row for row in range(TOKENS) if row not in hidden])
        else:
            same = (keys[0, head][:, None] == given.k[head][None]).all(-1)
            assert (same.sum(-1) == 1).all()
            kept.append(sorted(same.int().argmax(-1).tolist()))
    return kept


def main():
    torch.set_grad_enabled(False)
    inputs = [Input(seed) for seed in (1, 2)]
    cases = []
    for i, given in enumerate(inputs):
        def add(press, params, made, layers=None):
            one = {"press": press, "input": i, "params": params}
            if layers is None:
                one["kept"] = kept_by(made, given)
            else:
                one["layers"] = [{"rows": made.get_layer_budget(module_of(layer), TOKENS), "kept": kept_by(made, given, layer)}
                                 for layer in range(layers)]
            cases.append(one)

        # Ratios that binary floats hold: kvpress rounds tokens * (1 - ratio) down, 31 of 160 at 0.8.
        for ratio in (0.5, 0.25):  # with the default window of 64 no less stays
            add("snapkv", {"ratio": ratio, "window": 64, "kernel": 5}, kvpress.SnapKVPress(ratio))
        add("snapkv", {"ratio": 0.75, "window": 16, "kernel": 7}, kvpress.SnapKVPress(0.75, window_size=16, kernel_size=7))
        add("pyramidkv", {"ratio": 0.5, "window": 8, "kernel": 5, "beta": 4},
            kvpress.PyramidKVPress(0.5, window_size=8, kernel_size=5, beta=4), LAYERS)
        for ratio, alpha in ((0.75, 0.0), (0.75, 0.2), (0.5, 0.9)):
            press = kvpress.SnapKVPress(ratio, window_size=8, kernel_size=5)
            add("ada-snapkv", {"ratio": ratio, "window": 8, "kernel": 5, "alpha": alpha}, kvpress.AdaKVPress(press, alpha))
        for ratio in (0.75, 0.875):
            add("tova", {"ratio": ratio}, kvpress.TOVAPress(ratio))
            add("streaming", {"ratio": ratio, "sinks": 4}, kvpress.StreamingLLMPress(ratio))
            add("expected-attention", {"ratio": ratio, "sinks": 4, "positions": 512, "rope_base": ROPE_BASE},
                kvpress.ExpectedAttentionPress(ratio))
        for threshold in (0.1, 0.9):
            press = kvpress.SimLayerKVPress(lazy_threshold=threshold, n_recent=32)
            add("simlayerkv", {"threshold": threshold, "sinks": 4, "recent": 32, "last": 1}, press)
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json")
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"kvpress": importlib.metadata.version("kvpress"), "inputs": [given.to_json() for given in inputs],
                   "cases": cases}, file, separators=(",", ":"))
        file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
