#!/usr/bin/env python3
"""Writes tests/data/tokenizers/: what independent libraries make of the texts of tests/data/smollm2/tokenizer_cases.json and of
random ones.

  make_tokenizer_golden.py --data tests/data      needs tokenizers, sentencepiece, gguf (made with 0.23.3, 0.2.3, 0.19.0)

pre_tokenizers.json  {name: [[text, [piece, ...]], ...]} for gpt-2, smollm, llama-bpe and qwen2: the splits of the `tokenizers`
                     library by each family's published pattern.
spm.gguf, spm.json   a SentencePiece BPE vocabulary of 600 tokens with byte fallback, trained on those texts with the options of
                     Llama 2 (identity normalisation, a space in front, digits apart), and [[text, ids, text of the ids], ...].
bpe.gguf, bpe.json   a byte-level BPE vocabulary of 600 tokens with the llama-bpe pattern, and [[text, ids], ...].
"""
import argparse
import io
import json
import os
import random

import gguf
import sentencepiece
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITTERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]),
    "llama-bpe": pre_tokenizers.Split(Regex("|".join([CONTRACTIONS, WORDS, r"\p{N}{1,3}", REST])), behavior="isolated"),
    "qwen2": pre_tokenizers.Split(Regex("|".join([CONTRACTIONS, WORDS, r"\p{N}", REST])), behavior="isolated"),
}
# Pieces that meet at the edges of the patterns: contractions, blanks of several kinds, digits of several scripts, marks.
ALPHABET = ["a", "Z", "s", "S", "t", "re", "RE", "ve", "ll", "lL", "d", "m", "'", "'", "\u2019", " ", " ", " ", "\t", "\n", "\r", "\r\n",
            "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\x0b", "\x1c", "1", "23", "\u0664", "\u00bd", "\u2167", "\u4e09", "\u00e9", "e\u0301",
            "\u4f60", "\u0e01\u0e33", "\u0939\u093f", "\u0430", "!", "...", "$", "_", "-", "\u20ac", "\U0001f600", "\U0001f468\u200d\U0001f469",
            "\u200b", "\x00", "\u00ad", "\u02b0", "\u16ee", "\U00020000", "\U0010ffff"]


def random_texts(count):
    rng = random.Random(11)
    return ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 14))) for _ in range(count)]


def dump(path, rows):
    with open(path, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def split(name, text):
    return [text[begin:end] for _, (begin, end) in SPLITTERS[name].pre_tokenize_str(text)]


def write_spm(out, texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.split("\n") if line] * 3), model_writer=model,
        model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity", split_digits=True,
        remove_extra_whitespaces=False, add_dummy_prefix=True, character_coverage=0.98, allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>"], minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(sp.get_piece_size())
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 4 if sp.id_to_piece(i) == "<tool>" else 1
    write_gguf(os.path.join(out, "spm.gguf"), "llama", [sp.id_to_piece(i) for i in ids], [kind(i) for i in ids],
               scores=[sp.get_score(i) for i in ids])
    rows = [[text, sp.encode(text), sp.decode(sp.encode(text))] for text in texts if text and "\x00" not in text]
    dump(os.path.join(out, "spm.json"), rows)


def write_bpe(out, texts):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [SPLITTERS["llama-bpe"], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts * 3, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    # A whole word that no merges lead to: ignore_merges takes it all the same.
    state["vocab"]["\u0120Quixotry"] = len(state["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    vocab = state["vocab"]
    tokenizer.model = models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges], ignore_merges=True)
    tokens = sorted(vocab, key=vocab.get)
    write_gguf(os.path.join(out, "bpe.gguf"), "gpt2", tokens, [1] * len(tokens), pre="llama-bpe", merges=merges)
    dump(os.path.join(out, "bpe.json"), [[text, tokenizer.encode(text, add_special_tokens=False).ids] for text in texts])


def write_gguf(path, model, tokens, kinds, scores=None, pre=None, merges=None):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if pre: writer.add_tokenizer_pre(pre)
    if scores: writer.add_token_scores(scores)
    if merges: writer.add_token_merges(merges)
    if model == "llama":
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    data = parser.parse_args().data
    out = os.path.join(data, "tokenizers")
    os.makedirs(out, exist_ok=True)
    known = [row["text"] for row in json.load(open(os.path.join(data, "smollm2", "tokenizer_cases.json")))]
    short = [text for text in known if len(text) <= 200]
    texts = short + random_texts(400)
    with open(os.path.join(out, "pre_tokenizers.json"), "w") as file:
        file.write("{\n" + ",\n".join(json.dumps(name) + ": [\n" + ",\n".join(json.dumps([t, split(name, t)]) for t in texts) + "\n]"
                                       for name in SPLITTERS) + "\n}\n")
    some = short + random_texts(100) + ["Say Quixotry and Quixotry!"]
    write_spm(out, some)
    write_bpe(out, some)


if __name__ == "__main__":
    main()
