"""A model's files on this disk: which count, what is refused, and what a picture records of them. No network."""

import random
from pathlib import Path

import pytest

from uso.config import ComponentName, ModelConfig, Source, load_model_config, with_local_files
from uso.errors import CheckpointError, MissingWeightsError
from uso.weights.hub.files import Located, locate

MIB = 1 << 20


def model(**components: Source) -> ModelConfig:
    return load_model_config("demo").model_copy(update={"name": "tiny", "components": components})


def write(folder: Path, *names: str, data: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(data)
    return folder


def local(path: Path, name: ComponentName = "text_encoder") -> Located:
    return locate(model(**{name: Source(path=str(path))}), offline=True)[name]


def test_local_file(tmp_path: Path) -> None:
    """A picture that tells where a person keeps the files; a link that loses its name."""
    target = write(tmp_path / "blobs", "0123abcd") / "0123abcd"
    link = tmp_path / "my.safetensors"
    link.symlink_to(target)
    config = with_local_files(model(lora=Source(repo="lab/flux", path="x")), {"lora": str(link)})
    located = locate(config, offline=True)["lora"]
    assert (located.path, located.files) == (link, (link,))
    assert located.origin == {"file": "my.safetensors", "bytes": 7, "fingerprint": located.origin["fingerprint"]}
    assert str(tmp_path) not in str(located.origin)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.safetensors", "config.json", "a.bin"], ["a.safetensors"]),
        (["FLUX.1-mine.safetensors"], ["FLUX.1-mine.safetensors"]),
        (["model.fp16.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["diffusion_pytorch_model.safetensors", "extra.safetensors"], ["diffusion_pytorch_model.safetensors"]),
        (["model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors", "x.safetensors"], ["m-1", "m-2"]),
    ],
)
def test_local_folder_of_weights(tmp_path: Path, names: list[str], chosen: list[str]) -> None:
    """fp16 variants, strangers beside an index, or pickles taken for the weights."""
    write(tmp_path, *names)
    if "model.safetensors.index.json" in names:
        index = '{"weight_map": {"b": "m-2.safetensors", "a": "m-1.safetensors", "c": "m-1.safetensors"}}'
        (tmp_path / "model.safetensors.index.json").write_text(index)
    located = local(tmp_path)
    assert located.path == tmp_path
    assert [path.name.removesuffix(".safetensors") for path in located.files] == [
        name.removesuffix(".safetensors") for name in chosen
    ]


def test_local_tokenizer(tmp_path: Path) -> None:
    """A tokenizer's folder searched for weights; one without a vocabulary accepted."""
    write(tmp_path, "tokenizer_config.json", "vocab.json")
    with pytest.raises(MissingWeightsError, match="tokenizer of tiny in .* is not complete"):
        local(tmp_path, "tokenizer")
    write(tmp_path, "merges.txt", "notes.md")
    names = [path.name for path in local(tmp_path, "tokenizer").files]
    assert names == ["merges.txt", "tokenizer_config.json", "vocab.json"]


def test_local_sources_that_cannot_be_used(tmp_path: Path) -> None:
    """Pickles loaded, a guess between two files, an index that reaches out of its folder, missing parts ignored."""
    with pytest.raises(MissingWeightsError, match="text_encoder of tiny should be at .*gone.*--text-encoder"):
        local(tmp_path / "gone.safetensors")
    with pytest.raises(
        CheckpointError, match="weights.bin is .*pickle|weights.bin is no safetensors|weights.bin is truncated"
    ):
        local(write(tmp_path, "weights.bin") / "weights.bin")
    with pytest.raises(CheckpointError, match=r"holds several weights \(a.safetensors, b.safetensors\)"):
        local(write(tmp_path / "two", "a.safetensors", "b.safetensors"))
    indexed = write(tmp_path / "indexed", "model.safetensors.index.json", "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="damaged: it holds no weight_map"):
        local(indexed)
    index = indexed / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../weights.safetensors"}}')
    with pytest.raises(CheckpointError, match="names '../weights.safetensors'"):
        local(indexed)
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "other.safetensors"}}')
    with pytest.raises(MissingWeightsError, match="is not complete: other.safetensors is not there"):
        local(indexed)


def test_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    """Two trainings with one record; one file with two, after a move; a change in the header unseen."""
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"padding":"' + b"x" * 500_000 + b'"}'
    data = bytearray(len(header).to_bytes(8, "little") + header + random.Random(0).randbytes(8 * MIB))

    def print_of(folder: str) -> str:
        path = write(tmp_path / folder, "w.safetensors", data=bytes(data)) / "w.safetensors"
        return str(local(path).origin["fingerprint"])

    prints = [print_of("here"), print_of("there")]
    assert prints[0] == prints[1]
    data[100_000] ^= 1  # in the header, between two slices
    prints.append(print_of("header"))
    data[-1] ^= 1
    prints.append(print_of("last"))
    data += b"\0"
    prints.append(print_of("longer"))
    assert len(set(prints)) == 4
