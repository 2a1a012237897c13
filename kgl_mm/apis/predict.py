"""Inspecting images from the command line: what ``tools/predict.py`` does."""

import csv
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kgl_mm.errors import UsageError
from kgl_mm.image_files import HIDDEN, SUFFIXES
from kgl_mm.inspection import Result, Source, sources

from .inspector import DefectInspector

LINES = 20
"""On a terminal, of more images there is a summary alone."""
LONGEST = 200
"""Of the name of a picture, in bytes; file systems take 255, and something is added while it is written."""
COLUMNS = ('image', 'label', 'score', 'threshold', 'calibrated', 'boxes', 'error')


def predict(
    inspector: DefectInspector,
    images: Sequence[str],
    out: str | None = None,
    table: str | None = None,
    batch_size: int = 4,
) -> Counter:
    """Print a line an image or a summary, and write what is asked for; the number of images of each label.

    Args:
        inspector: what inspects them.
        images: files and folders.
        out: a folder for pictures with heat map and regions, laid out as the images are.
        table: a CSV file with a row an image, in their order; those that cannot be read come last.
        batch_size: images at once.
    """
    _refuse_pictures_among_images(out, images)
    found, faults, missing, labels = list(sources(images)), [], [], Counter()
    prints = len(found) <= LINES or not sys.stdout.isatty()
    with ExitStack() as stack:
        row = _writer(table, stack)
        advance = _bar(len(found), stack)

        def on_error(source: Source, error: UsageError) -> None:
            faults.append((source.name, str(error)))
            advance()

        used = set()
        for result in inspector.stream(found, batch_size, on_error):
            labels[result.label] += 1
            row(_row(result))
            if prints:
                try:
                    print(f'{_printable(result.name)}: {result}', flush=True)
                except BrokenPipeError:  # who reads has left; what is written goes on
                    prints = False
            if out:
                try:
                    result.save(_place(Path(out), result.name, used))
                except UsageError as error:
                    missing.append(str(error))
            advance()
        for name, fault in faults:
            row(dict(image=name, error=fault))
    _say(inspector, images, labels, [fault for _, fault in faults], missing)
    return labels


def _bar(total: int, stack: ExitStack) -> Callable[[], None]:
    """What moves a progress bar on; where only an exported model runs, there may be none."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        return lambda: None
    console = Console(stderr=True)
    bar = stack.enter_context(
        Progress(console=console, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty())
    )
    task = bar.add_task('inspecting', total=total)
    return lambda: bar.advance(task)


def _say(
    inspector: DefectInspector, images: Sequence[str], labels: Counter, faults: list[str], missing: list[str]
) -> None:
    if labels:
        counts = ', '.join(f'{labels[name]} {name}' for name in inspector.classes if labels[name])
        threshold = f', at threshold {inspector.threshold}' if inspector.threshold else ''
        print(f'{labels.total()} images: {counts}{threshold}')
    if others := sum(map(_others, images)):
        print(f'{others} other files were left alone, since their names do not end in {", ".join(SUFFIXES)}')
    for what, found in {'could not be read': faults, 'have no picture': missing}.items():
        if found:
            print('\n  '.join([f'{len(found)} {what}:', *map(_printable, found)]), file=sys.stderr)
    if not labels:
        raise UsageError(f'none of the {len(faults)} images could be read')


def _others(path: str) -> int:
    """How many files of a folder and those below it are no images by their names."""
    names = [name for _, _, names in os.walk(path) for name in names]
    return sum(not name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN) for name in names)


def _refuse_pictures_among_images(out: str | None, images: Sequence[str]) -> None:
    for folder in images if out else ():
        if Path(folder).is_dir() and Path(out).resolve().is_relative_to(Path(folder).resolve()):
            raise UsageError(f'--out {out}: lies in {folder}, whose images the next run would find there')


def _writer(table: str | None, stack: ExitStack) -> Callable[[dict], None]:
    if not table:
        return lambda row: None
    try:
        Path(table).parent.mkdir(parents=True, exist_ok=True)
        file = Path(table).open('w', newline='', encoding='utf-8', errors='surrogateescape')  # noqa: SIM115
    except OSError as error:
        raise UsageError(f'--csv {table}: cannot be written ({error.strerror})') from None
    writer = csv.DictWriter(stack.enter_context(file), COLUMNS)
    writer.writeheader()
    return writer.writerow


def _row(result: Result) -> dict:
    facts = result.as_dict()
    boxes = '; '.join(' '.join(map(str, region.box)) for region in result.regions)
    return dict({key: facts[key] for key in COLUMNS if key in facts}, label=result.label, boxes=boxes)


def _place(out: Path, name: str, used: set[Path]) -> Path:
    """Where the picture of an image goes: always inside ``out``, and nowhere twice."""
    inside = Path(name)
    if len(os.fsencode(inside.name)) > LONGEST:
        inside = inside.with_name(os.fsencode(inside.name)[:LONGEST].decode(errors='ignore'))
    if inside.is_absolute() or '..' in inside.parts:
        inside = Path(inside.name)
    place, number = out / f'{inside}.jpg', 2
    while place in used:
        place, number = out / f'{inside}-{number}.jpg', number + 1
    used.add(place)
    return place


def _printable(text: str) -> str:
    """Names may hold anything, also what a terminal would obey."""
    return ''.join(letter if letter.isprintable() else '?' for letter in text)
