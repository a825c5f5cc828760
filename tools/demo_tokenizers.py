"""Two small tokenizers in the file forms of the FLUX repositories: CLIP's byte-pair encoding, T5's unigram pieces.

Both are trained on sentences that are composed here from a list of words, and give the same files on every run.
"""

import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEED = 20250826

CLIP_LENGTH = 77
CLIP_VOCABULARY = 1024
T5_PIECES = 1024
T5_EXTRA_IDS = 100

WORDS = {
    "adjective": "small large old young bright dark golden silver red blue green yellow purple orange white black "
    "soft gentle happy quiet wild ancient modern elegant rusty wooden glass shiny misty stormy sunny snowy colorful "
    "delicate vivid pale warm cold cozy magical futuristic abandoned beautiful cute fluffy tiny giant",
    "subject": "woman man girl boy child person astronaut cat dog horse bird owl fox bear rabbit dragon robot knight "
    "wizard dancer musician chef farmer sailor teapot cup bottle chair lamp clock guitar piano violin bicycle car "
    "train ship boat rocket castle lighthouse tower bridge house cottage garden tree flower rose mushroom mountain",
    "action": "standing sitting walking running dancing reading sleeping smiling looking flying swimming holding a cup "
    "playing cooking painting singing waiting resting floating glowing riding climbing drinking coffee",
    "place": "forest beach city street kitchen library desert river lake harbor market temple station island valley "
    "field meadow cave room studio museum stadium rooftop moon space night sky sunset rain snow fog spring autumn",
    "style": "watercolor oil painting ink drawing woodcut mosaic poster sketch pencil charcoal pastel comic cartoon "
    "anime pixel art clay origami embroidery stained glass photograph film cinematic illustration print collage "
    "graffiti fresco line art flat design low poly vintage minimal geometric impressionist cubist baroque",
    "detail": "soft light hard shadows high detail close up half body full body portrait wide shot bokeh symmetry "
    "rich texture bold lines thick brush strokes muted colors vibrant colors black and white morning light backlight",
}
"""What the demo's prompts are likely to be made of; both vocabularies are trained on sentences of these words."""

SENTENCES = (
    "A {adjective} {subject} {action} in the {place}, {style}, {detail}.",
    "The {subject} in {style} style.",
    "Transform the style into {style} style.",
    "A {subject} and a {adjective} {subject} near the {place}.",
    "{detail}, the {adjective} {subject} is {action} at {place}.",
    "Convert the image of a {subject} to {adjective} {style}.",
    "There are {number} {adjective} {subject}s in front of the {place}; it's {adjective}!",
)
NUM_SENTENCES = 4000

# Every character that a Latin-script prompt is likely to hold is a piece of its own in the T5 vocabulary.
T5_CHARACTERS = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0x180)]))


def sentences() -> Iterator[str]:
    words = {kind: text.split() for kind, text in WORDS.items()} | {"number": [str(n) for n in range(1, 100)]}
    # Python promises that random() repeats with a seed on every version; not so choice().
    draw = random.Random(SEED).random
    for index in range(NUM_SENTENCES):
        chosen = {kind: some[int(draw() * len(some))] for kind, some in words.items()}
        yield SENTENCES[index % len(SENTENCES)].format(**chosen)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _most_frequent_pair(words: Counter[tuple[str, ...]]) -> tuple[str, str]:
    pairs: Counter[tuple[str, str]] = Counter()
    for symbols, count in words.items():
        for pair in itertools.pairwise(symbols):
            pairs[pair] += count
    return max(pairs, key=lambda pair: (pairs[pair], pair))


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def clip_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges in CLIP's order: bytes, bytes that end a word, merges, the two marks.

    The merging is written out because the tokenizers library breaks ties at random.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    rules = CLIPTokenizer().backend_tokenizer
    words: Counter[tuple[str, ...]] = Counter()
    for sentence in sentences():
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(sentence)):
            words[(*word[:-1], f"{word[-1]}</w>")] += 1
    alphabet = sorted(ByteLevel.alphabet())
    marks = ["<|startoftext|>", "<|endoftext|>"]
    merges: list[tuple[str, str]] = []
    for _ in range(CLIP_VOCABULARY - 2 * len(alphabet) - len(marks)):
        pair = _most_frequent_pair(words)
        merges.append(pair)
        words = Counter({_merged(symbols, pair): count for symbols, count in words.items()})
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *(left + right for left, right in merges), *marks]
    return tokens, merges


def write_clip_tokenizer(folder: Path) -> int:
    """The files of the released `tokenizer` folder. Returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens, merges = clip_vocabulary()
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    write_json(folder / "special_tokens_map.json", marks)
    settings: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_LENGTH}
    write_json(folder / "tokenizer_config.json", settings | marks)
    return len(tokens)


def write_t5_tokenizer(folder: Path, max_length: int) -> int:
    """The files of the released `tokenizer_2` folder. Returns the size of the vocabulary, sentinels included."""
    import sentencepiece
    from transformers import T5Tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        model_writer=model,
        vocab_size=T5_PIECES,
        hard_vocab_limit=False,
        model_type="unigram",
        required_chars=T5_CHARACTERS,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [(pieces.id_to_piece(index), pieces.get_score(index)) for index in range(pieces.get_piece_size())]
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(T5_EXTRA_IDS))]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=T5_EXTRA_IDS, model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    return len(vocabulary)
