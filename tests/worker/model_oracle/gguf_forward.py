"""Forward pass of a llama, qwen2 or qwen3 GGUF file in NumPy, float64, in the conventions of the file itself.

Knows nothing of transformers: it reads keys and tensors as an engine must (rows of llama's q and k in neighbouring
pairs, rope_freqs.weight as divisors, linear and yarn scaling). make_tiny_models.py keeps no file on which they differ.
Needs numpy and gguf.
"""

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class GgufModel:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.arch = self.field("general.architecture")
        self.tensors = {t.name: self._matrix(t) for t in reader.tensors}
        self.heads = self.key("attention.head_count")
        self.kv_heads = self.key("attention.head_count_kv")
        self.width = self.key("embedding_length")
        self.head_dim = self.key("attention.key_length", self.width // self.heads)
        self.layers = self.key("block_count")
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.frequencies, self.magnitude = self._rope()

    @staticmethod
    def _matrix(tensor):
        shape = [int(n) for n in reversed(tensor.shape)]
        return dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float64)

    def field(self, name, default=None):
        return self.fields[name].contents() if name in self.fields else default

    def key(self, name, default=None):
        return self.field(f"{self.arch}.{name}", default)

    def _rope(self):
        pairs = np.arange(self.head_dim // 2)
        frequencies = self.key("rope.freq_base", 10000.0) ** (-2.0 * pairs / self.head_dim)
        if "rope_freqs.weight" in self.tensors:  # llama 3: one divisor for each pair
            frequencies = frequencies / self.tensors["rope_freqs.weight"]
        kind = self.key("rope.scaling.type", "none")
        if kind == "none":
            return frequencies, 1.0
        factor = self.key("rope.scaling.factor")
        if kind == "linear":
            return frequencies / factor, 1.0
        # YaRN (arXiv 2309.00071, section 3.2): pairs that turn often over the trained length keep their frequency,
        # those that turn less than once are slowed down, linear between the two pair numbers; magnitude 0.1 ln s + 1.
        original = self.key("rope.scaling.original_context_length")
        base = self.key("rope.freq_base")
        pair_of = lambda turns: self.head_dim * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
        low = max(np.floor(pair_of(32.0)), 0)
        high = min(np.ceil(pair_of(1.0)), self.head_dim - 1)
        slowed = np.clip((pairs - low) / max(high - low, 0.001), 0, 1)
        return frequencies * (1 - slowed) + frequencies / factor * slowed, 0.1 * np.log(factor) + 1.0

    def _norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.tensors[name]

    def _rotate(self, x):  # [tokens, heads, head_dim]
        angles = np.arange(x.shape[0])[:, None, None] * self.frequencies
        cos, sin = np.cos(angles) * self.magnitude, np.sin(angles) * self.magnitude
        half = self.head_dim // 2
        if self.arch == "llama":
            first, second = slice(0, None, 2), slice(1, None, 2)
        else:
            first, second = slice(0, half), slice(half, None)
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def _project(self, x, layer, name, heads):
        out = x @ self.tensors[f"blk.{layer}.{name}.weight"].T
        if f"blk.{layer}.{name}.bias" in self.tensors:
            out = out + self.tensors[f"blk.{layer}.{name}.bias"]
        return out.reshape(len(x), heads, self.head_dim)

    def _attention(self, x, layer):
        q = self._project(x, layer, "attn_q", self.heads)
        k = self._project(x, layer, "attn_k", self.kv_heads)
        v = self._project(x, layer, "attn_v", self.kv_heads)
        if f"blk.{layer}.attn_q_norm.weight" in self.tensors:
            q = self._norm(q, f"blk.{layer}.attn_q_norm.weight")
            k = self._norm(k, f"blk.{layer}.attn_k_norm.weight")
        q, k = self._rotate(q), self._rotate(k)
        k, v = (np.repeat(t, self.heads // self.kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.head_dim)
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", probs, v).reshape(len(x), -1)
        return mixed @ self.tensors[f"blk.{layer}.attn_output.weight"].T

    def logits(self, tokens):
        """[tokens, vocabulary] in float64."""
        t = self.tensors
        x = t["token_embd.weight"][tokens]
        for layer in range(self.layers):
            x = x + self._attention(self._norm(x, f"blk.{layer}.attn_norm.weight"), layer)
            y = self._norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = y @ t[f"blk.{layer}.ffn_gate.weight"].T
            up = y @ t[f"blk.{layer}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ t[f"blk.{layer}.ffn_down.weight"].T
        output = t.get("output.weight", t["token_embd.weight"])
        return self._norm(x, "output_norm.weight") @ output.T
