"""Makes tests/data/tiny_models: small random models of every architecture and rope scaling, with their logits.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf
    venv/bin/python tests/worker/model_oracle/make_tiny_models.py tests/data/tiny_models

The logits come from transformers in float32 with exactly the weights of the file (rounded to F16 or Q8_0 where it
is). A second computation, gguf_forward.py, reads the written file; nothing is kept unless both agree. README.md there
has the format.
Made with torch 2.15.0, transformers 5.23.0, gguf 0.19.0, numpy 2.4.6.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers
from gguf_forward import GgufModel

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "q8_0": gguf.GGMLQuantizationType.Q8_0}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}
YARN_SCALING = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

# name: architecture, type of the matrices, seed, what differs from BASE.
BASE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "tie_word_embeddings": True}
MODELS = {
    "llama_f32": ("llama", "f32", 1, {"tie_word_embeddings": False, "rope_theta": 10000.0}),
    "llama_f16": ("llama", "f16", 2, {"num_hidden_layers": 3, "rope_theta": 10000.0}),
    "llama_q8_0": ("llama", "q8_0", 3, {"tie_word_embeddings": False, "rope_theta": 100000.0}),
    "llama3_rope_f16": ("llama", "f16", 4, {"rope_theta": 500000.0, "scaling": LLAMA3_SCALING}),
    "llama_linear_f16": ("llama", "f16", 5, {"rope_theta": 10000.0, "scaling": {"rope_type": "linear", "factor": 4.0}}),
    "qwen2_f32": ("qwen2", "f32", 6, {"rope_theta": 1000000.0, "rms_norm_eps": 1e-6}),
    "qwen3_f32": ("qwen3", "f32", 7, {"head_dim": 32, "num_key_value_heads": 1, "rope_theta": 1000000.0,
                                      "rms_norm_eps": 1e-6}),
    "qwen3_yarn_f16": ("qwen3", "f16", 8, {"head_dim": 32, "rope_theta": 10000.0, "scaling": YARN_SCALING,
                                           "max_position_embeddings": 256}),
}
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, "smollm"),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, "qwen2"),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, "qwen2"),
}

# A byte-level vocabulary: 256 bytes, a few merges, three special tokens at the end.
MERGES = ["t h", "i n", "e r", "a n", "o n", "th e", "Ġ t", "Ġ a", "Ġ the", "r e", "in g", "Ġ s", "a t"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                 "'<|im_end|>' + '\n'}}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_characters():
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def vocabulary():
    # "Ġ the" is a merge of the tokens "Ġ" and "the".
    return byte_characters() + [merge.replace(" ", "") for merge in MERGES] + SPECIALS


def build(name):
    arch, kind, seed, options = MODELS[name]
    options = {**BASE, **options}
    theta, scaling = options.pop("rope_theta"), options.pop("scaling", None)
    config_class, model_class, _ = CLASSES[arch]
    rope = {"rope_theta": theta, **(scaling or {"rope_type": "default"})}
    config = config_class(vocab_size=len(vocabulary()), rope_parameters=rope, **options)
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    random = torch.Generator().manual_seed(seed)
    # Large enough that attention is far from uniform, norms and biases far from doing nothing.
    for key, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=random)
        if key.endswith("norm.weight"):
            values = 1 + 0.3 * values
        elif key.endswith("bias"):
            values = 0.5 * values
        elif "embed_tokens" in key or "lm_head" in key:
            values = 0.4 * values
        else:
            values = 1.3 * values / parameter.shape[1] ** 0.5
        if parameter.dim() == 2:
            values = torch.from_numpy(rounded(values.numpy(), kind))
        parameter.data = values
    if config.tie_word_embeddings:
        model.tie_weights()
    return config, model


def rounded(values, kind):
    return gguf.quants.dequantize(gguf.quants.quantize(values, TYPES[kind]), TYPES[kind]).astype(np.float32)


def neighbouring_pairs(rows, heads):
    """transformers' halves (j, j + d/2) to the neighbours (2j, 2j + 1) of a llama file."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


TENSORS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
           "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
           "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
           "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_tensors(config, model, arch):
    for key, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if arch == "llama" and "q_proj" in key:
            values = neighbouring_pairs(values, config.num_attention_heads)
        if arch == "llama" and "k_proj" in key:
            values = neighbouring_pairs(values, config.num_key_value_heads)
        if key.startswith("model.layers."):
            layer, rest = key.removeprefix("model.layers.").split(".", 1)
            part, suffix = rest.rsplit(".", 1)
            yield f"blk.{layer}.{TENSORS[part]}.{suffix}", values
        else:
            yield {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[key], values


def llama3_divisors(config, head_dim):
    """What a converter writes as rope_freqs.weight: the slow pairs by the factor, the fast ones not, smooth between."""
    s = config.rope_parameters
    lengths = 2 * np.pi * s["rope_theta"] ** (2.0 * np.arange(head_dim // 2) / head_dim)  # tokens in one turn
    turns = s["original_max_position_embeddings"] / lengths
    smooth = np.clip((turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"]), 0, 1)
    return (1 / ((1 - smooth) / s["factor"] + smooth)).astype(np.float32)


def write_gguf(path, name, config, model):
    arch, kind, _, _ = MODELS[name]
    w = gguf.GGUFWriter(path, arch)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w.add_name(f"tidepool tiny random {name}")
    w.add_license("Apache-2.0")
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    if head_dim * config.num_attention_heads != config.hidden_size:
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    rope = config.rope_parameters
    w.add_rope_freq_base(rope["rope_theta"])
    if arch == "llama":
        w.add_rope_dimension_count(head_dim)
        w.add_vocab_size(config.vocab_size)
    if rope["rope_type"] in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])

    tokens = vocabulary()
    first_special = len(tokens) - len(SPECIALS)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(CLASSES[arch][2])
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * first_special + [gguf.TokenType.CONTROL] * len(SPECIALS))
    w.add_token_merges(MERGES)
    w.add_bos_token_id(first_special + 1)
    w.add_eos_token_id(first_special + 2)
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    if rope["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(config, head_dim))
    for tensor, values in gguf_tensors(config, model, arch):
        if values.ndim == 2 and kind != "f32":
            w.add_tensor(tensor, gguf.quants.quantize(values, TYPES[kind]), raw_dtype=TYPES[kind])
        else:
            w.add_tensor(tensor, values)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def greedy(model, prompt, count):
    """Tokens, and by how much each beat the second."""
    ids, margins = list(prompt), []
    for _ in range(count):
        with torch.no_grad():
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        ids.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 5))
    return ids[len(prompt):], margins


def make(name, out):
    config, model = build(name)
    random = np.random.default_rng(MODELS[name][2])
    prompts = [[int(i) for i in random.integers(0, config.vocab_size, n)] for n in (96, 5)]
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0].numpy() for ids in prompts]
    path = out / f"{name}.gguf"
    write_gguf(path, name, config, model)
    second = GgufModel(path)
    difference = max(float(np.abs(second.logits(ids) - row).max()) for ids, row in zip(prompts, logits))
    spread = float(np.std(logits[0]))
    size = path.stat().st_size
    print(f"{name}: {size} bytes, standard deviation of the logits {spread:.2f}, largest difference {difference:.1e}")
    if difference > 5e-5:
        path.unlink()
        sys.exit(f"{name}: transformers and gguf_forward.py disagree by {difference}")
    (out / f"{name}.f32").write_bytes(np.concatenate(logits).astype("<f4").tobytes())
    new_ids, margins = greedy(model, prompts[0], 16)
    return {"model": f"{name}.gguf", "logits": f"{name}.f32", "vocabulary": config.vocab_size, "prompts": prompts,
            "greedy": {"new_ids": new_ids, "margins": margins}, "max_abs_diff_to_float64": difference}


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    cases = [make(name, out) for name in MODELS]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (out / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
