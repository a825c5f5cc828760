"""How fast each kind of weights file loads, and how much host memory that takes: `python -m tools.loading FOLDER`.

FLUX's transformer at full width with a few blocks, random numbers, written once into FOLDER (4 GB with `--blocks 1 2`).
`bf16+lora` is the bf16 file with a LoRA of USO's layout folded in. Each load runs in a fresh process, the kinds in
turn, twice; the faster one counts. `--against CHECKOUT` loads with another checkout of this program as well, in turns.
Memory is anonymous memory at its peak beside what stays in the end: mapped files are not counted.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent

BLOCKS = {"num_layers": 1, "num_single_layers": 2}
"""Double and single ones; `--blocks` changes them."""

LORA = "bf16+lora"

KINDS = ("bf16", LORA, "fp8", "fp8-scaled", "Q8_0", "Q4_K")

RANK = 128
"""Of USO's LoRA."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", nargs=2, type=int, default=(1, 2), help="of the model, for a new FOLDER (1 2)")
    parser.add_argument("--only", choices=KINDS, help="one kind of file")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of this program")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="loads of each (2)")
    parser.add_argument("--device", default="cpu", help="where numbers are dequantised, folded and kept (cpu)")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    BLOCKS.update(zip(BLOCKS, args.blocks, strict=True))
    if args.kind:
        print(json.dumps(measure(args.folder, args.kind, args.device)))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder)
    kinds = [args.only] if args.only else KINDS
    checkouts = [HERE] + ([args.against] if args.against else [])
    best: dict[tuple[Path, str], dict[str, float]] = {}
    for _ in range(args.rounds):
        for kind in kinds:
            for checkout in checkouts:
                found = _loaded(checkout, args, kind)
                best[checkout, kind] = min(best.get((checkout, kind), found), found, key=lambda each: each["seconds"])
    for (checkout, kind), values in best.items():
        where = f"  {checkout}" if args.against else ""
        print(
            f"{kind:<10} {file_of(args.folder, kind).stat().st_size / 1e9:5.2f} GB  {values['seconds']:6.2f} s, "
            f"{values['cpu_seconds']:.2f} CPU s; peak {values['peak_gib']:.2f} GiB, "
            f"{values['peak_gib'] / values['kept_gib']:.2f} x what stays{where}"
        )
    return 0


def _loaded(checkout: Path, args: argparse.Namespace, kind: str) -> dict[str, float]:
    """What a fresh process measures, with the program of a checkout. Waiting threads sleep, as the program has it."""
    script = str(Path(__file__).resolve())
    blocks = ["--blocks", *map(str, args.blocks)]
    command = [sys.executable, script, str(args.folder.resolve()), "--kind", kind, "--device", args.device, *blocks]
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout, env=environment)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def file_of(folder: Path, kind: str) -> Path:
    kind = "bf16" if kind == LORA else kind
    return folder / (f"flux-{kind}.gguf" if kind.startswith("Q") else f"flux-{kind}.safetensors")


def lora_of(folder: Path) -> Path:
    return folder / "dit_lora.safetensors"


def architecture() -> dict[str, object]:
    from uso.config import architecture_file, load_model_config, read_component_config

    return read_component_config(architecture_file(load_model_config("flux-dev"), "transformer")) | BLOCKS


def write(folder: Path) -> None:
    """The files that are not there yet."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import save_file

    from uso.weights.formats.patches import flux_shapes, parameter_shapes

    with init_empty_weights():
        shapes = flux_shapes(parameter_shapes(FluxTransformer2DModel.from_config(architecture())))
    draw = torch.Generator().manual_seed(0)

    def numbers(shape: tuple[int, ...]) -> torch.Tensor:
        return (0.02 * torch.randn(shape, generator=draw)).to(torch.bfloat16)

    def stored(change: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        draw.manual_seed(0)
        found: dict[str, torch.Tensor] = {}
        for name, shape in shapes.items():
            found |= change(name, numbers(shape))
        return found

    def scaled(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        if value.dim() != 2:
            return {name: value}
        scale = value.float().abs().max() / 448
        return {
            name: (value.float() / scale).to(torch.float8_e4m3fn),
            f"{name.removesuffix('.weight')}.scale_weight": scale,
        }

    makers: dict[str, Callable[[str, torch.Tensor], dict[str, torch.Tensor]]] = {
        "bf16": lambda name, value: {name: value},
        "fp8": lambda name, value: {name: value.to(torch.float8_e4m3fn)},
        "fp8-scaled": scaled,
    }
    for kind, make in makers.items():
        if not file_of(folder, kind).is_file():
            save_file(stored(make), file_of(folder, kind))
    if not lora_of(folder).is_file():
        draw.manual_seed(1)
        save_file({name: numbers(shape) for name, shape in _lora_shapes(shapes).items()}, lora_of(folder))
    for kind in ("Q8_0", "Q4_K"):
        if not file_of(folder, kind).is_file():
            _write_gguf(file_of(folder, kind), kind, shapes)


def _lora_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    from uso.weights.formats.layouts import lora_modules, lora_target

    found: dict[str, tuple[int, ...]] = {}
    for module in lora_modules(*BLOCKS.values()):
        rows, columns = shapes[target := lora_target(module)]
        rows = 3 * columns if target.endswith("linear1.weight") else rows
        found |= {f"{module}.down.weight": (RANK, columns), f"{module}.up.weight": (rows, RANK)}
    return found


def _write_gguf(path: Path, kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Random blocks: how long they take to read does not depend on the numbers."""
    import gguf
    import numpy as np

    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "flux")
    scale = np.frombuffer(np.float16(0.0005).tobytes(), np.uint8)
    for name, shape in shapes.items():
        if len(shape) == 2 and shape[1] % block == 0:
            data = draw.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
            for start in (0,) if kind == "Q8_0" else (0, 2):
                data[..., start : start + 2] = scale
            writer.add_tensor(name, data.reshape(shape[0], -1), raw_dtype=number)
        else:
            writer.add_tensor(name, draw.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(folder: Path, kind: str, device: str) -> dict[str, float]:
    """Seconds of a load in bfloat16, and GiB of anonymous memory at its peak and at its end, beside what was there."""
    path, lora = file_of(folder, kind), [lora_of(folder)] if kind == LORA else None
    import torch

    from uso.weights.checkpoints import load_transformer

    torch.zeros(1, device=device)  # a GPU's start does not count
    before, peak, done = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    began, cpu = time.perf_counter(), time.process_time()
    try:
        where = torch.device(device)
        model = load_transformer(architecture(), [path], lora=lora, dtype=torch.bfloat16, device=where, work=where)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        done.set()
        thread.join()
    kept = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": (peak[0] - before) / 2**30, "kept_gib": kept / 2**30}


def _anonymous() -> int:
    with Path("/proc/self/status").open(encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
