"""Contact sheets of a model's inputs, results and true pictures; and all its pictures as files."""

from collections import defaultdict
from pathlib import Path

from PIL import Image

from tools.demo.judge.material import Task
from tools.demo.judge.scores import Batch
from tools.demo.world.triplets import Pixels
from uso.evaluation.sheet import ROWS, SheetRow, contact_sheet


def row_of(task: Task, results: dict[str, Pixels]) -> SheetRow:
    """A task, what models made of it, and the truth."""
    looks = [name for name in (task.subject, task.style_name, task.style_name_2) if name]
    prompt = task.prompt or "(no words: layout kept)"
    return SheetRow(
        {"content": task.content, "style": task.style, "style 2": task.style_2, **results, "truth": task.truth},
        f"{', '.join(looks)}: {prompt}",
    )


class Album:
    """A folder with every picture, `CONDITION/MODEL/INDEX.png`, and `CONDITION.png`, a sheet of the first ones.

    Nothing is selected. Files of the same names are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[SheetRow]] = defaultdict(list)

    def add(self, batch: Batch) -> None:
        """Write a batch's pictures, and the sheet while it still grows."""
        rows = self._rows[batch.condition.name]
        grew = len(rows) < ROWS
        for place, task in enumerate(batch.tasks):
            made = {name: pictures[place] for name, pictures in batch.results.items()}
            for name, picture in made.items():
                path = self.folder / batch.condition.name / name / f"{task.index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
            if len(rows) < ROWS:
                rows.append(row_of(task, made))
        if grew:
            contact_sheet(rows).save(self.folder / f"{batch.condition.name}.png")
