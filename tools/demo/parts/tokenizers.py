"""The tokenizers, in the file forms of the FLUX repositories: CLIP's byte-pair encoding, T5's unigram pieces.

Both are learned from sentences: captions of the drawn data (its held-out subjects and styles too: a word is a word),
and sentences composed here from a list of words that prompts are likely to hold. The files are the same on every run.

`architecture`: `clip_vocabulary`, `t5_pieces`, `t5_length`.
"""

import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.demo.training.config import PartConfig
from tools.demo.world.scenes import (
    caption_words,
    compose,
    draw_look,
    sentence,
    styled_sentence,
)
from tools.demo.world.styles import STYLES
from tools.demo.world.subjects import SUBJECTS
from uso.pipeline.encoders import CLIP_LENGTH

SEED = 20250826

T5_EXTRA_IDS = 100
NUM_CAPTIONS = 8000

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
    "common": "a an the of in on at with and to from by for into as is are his her their its this that there it very "
    "holding wearing covered made under over behind beside between next through across around near front back left "
    "right side top many two three four five style image picture scene design transform convert turn change make keep "
    "same subject content layout look like beautiful handsome lovely big little long short old new young people face "
    "hair eyes hand hat dress coat glasses smile water fire ice grass leaf leaves wood stone metal paper cloth wall "
    "door window table bed book ball box bag shoe sun stars clouds wind storm morning evening day winter summer "
    "red-haired neon lit city cyberpunk fantasy story hero king queen princess angel ghost monster alien",
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
    yield from captions()
    yield from whole_words(words)


def whole_words(kinds: dict[str, list[str]]) -> Iterator[str]:
    """Each word by itself and before a mark: sentencepiece considers as a piece only what it finds in two places."""
    single = {word.strip(".,") for words in kinds.values() for word in words}
    for word in sorted(single | caption_words(style.phrase for style in STYLES)):
        yield f"{word} {word}, {word}. {word.capitalize()} {word.capitalize()},"


def captions() -> Iterator[str]:
    """Captions of scenes, with and without a style, as the drawn data has them."""
    random = np.random.Generator(np.random.PCG64(SEED))
    for index in range(NUM_CAPTIONS):
        scene = compose(draw_look(SUBJECTS[index % len(SUBJECTS)], random), random)
        style = STYLES[int(random.integers(len(STYLES)))]
        yield styled_sentence(scene, style.phrase) if index % 3 else sentence(scene)


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


def clip_vocabulary(size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges in CLIP's order: bytes, bytes that end a word, merges, the two marks.

    The merging is written out because the tokenizers library breaks ties at random.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    rules = CLIPTokenizer().backend_tokenizer
    words: Counter[tuple[str, ...]] = Counter()
    for text in sentences():
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(text)):
            words[(*word[:-1], f"{word[-1]}</w>")] += 1
    alphabet = sorted(ByteLevel.alphabet())
    marks = ["<|startoftext|>", "<|endoftext|>"]
    merges: list[tuple[str, str]] = []
    for _ in range(size - 2 * len(alphabet) - len(marks)):
        pair = _most_frequent_pair(words)
        merges.append(pair)
        words = Counter({_merged(symbols, pair): count for symbols, count in words.items()})
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *(left + right for left, right in merges), *marks]
    return tokens, merges


def write_clip_tokenizer(folder: Path, size: int) -> int:
    """The files of the released `tokenizer` folder. Returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens, merges = clip_vocabulary(size)
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


def write_t5_tokenizer(folder: Path, size: int, max_length: int) -> int:
    """The files of the released `tokenizer_2` folder. Returns the size of the vocabulary, sentinels included."""
    import sentencepiece
    from transformers import T5Tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        model_writer=model,
        vocab_size=size,
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


def train_tokenizers(config: PartConfig) -> None:
    """Write `tokenizer` and `tokenizer_2` of the model's folder."""
    write_clip_tokenizer(config.model / "tokenizer", int(config.architecture["clip_vocabulary"]))
    write_t5_tokenizer(
        config.model / "tokenizer_2", int(config.architecture["t5_pieces"]), int(config.architecture["t5_length"])
    )
    for path in [*(config.model / "tokenizer").iterdir(), *(config.model / "tokenizer_2").iterdir()]:
        path.chmod(0o644)
