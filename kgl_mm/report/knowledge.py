"""The sections on what a run knew: labels that its evidence speaks against, and the quality of its priors."""

from pathlib import Path

from kgl_mm.errors import first_line
from kgl_mm.priors import PriorStore
from kgl_mm.priors.generation import keys_of
from kgl_mm.priors.judgement import judge
from kgl_mm.priors.quality import summary, warnings_of
from kgl_mm.priors.sources.base import is_judged_by_skill
from kgl_mm.visualization import overlay

from . import page
from .data import Run, Stage, read_by, stores_of
from .doubts import Doubt, doubts, least_trusted, tells_apart
from .pictures import LARGE, Splits, decode, embed, read_mask, shrunk, thumbnail

SUSPECTS, LISTED, MAPS = 12, 100, 8
QUALITY = (
    'Pointing: how often the brightest place is in the true mask. Energy: the share of the brightness in there. IoU '
    'and recall: how well the target made of the map covers the mask. Trust: how alike the maps are when the image is '
    'flipped.'
)
EVIDENCE = (
    'The higher the evidence, the more speaks for a defect. Against a label it speaks from 0 on, or, of a model that '
    'leans to a side, from halfway between what is typical of good and of defective images.'
)


def labels_section(run: Run, splits: Splits) -> str:
    """Training images whose evidence speaks against their label, the clearest first."""
    sources, stage = evidence_of(run)
    if not sources:
        return page.sentence('No stage has written evidence of its training images, so their labels were not checked.')
    found = doubts(sources)
    if len({doubt.label for doubt in found}) < 2:
        return page.sentence('Evidence of a defect tells good from defective, and here are images of one of them only.')
    against = [doubt for doubt in found if doubt.against > 0]
    shown = found[:SUSPECTS]
    paths = _paths(run, splits)
    text = page.sentence(
        f'Of {len(found)} training images {len(against)} have evidence that speaks against their label. '
        + ('The clearest come first.' if against else 'Those with the weakest evidence for it come first.')
    )
    text += page.note(f'{_whose(stage)} {EVIDENCE}')
    text += page.note(
        f'On these images the evidence has an AUROC of {tells_apart(found):.2f}. Near 0.50 it says nothing of labels.'
    )
    text += page.tiles([(_thumbnail(paths, doubt.key), doubt.key, _says(doubt)) for doubt in shown])
    if against:
        rows = [
            [doubt.key, _label(doubt), f'{doubt.evidence:.2f}', f'{doubt.against:.2f}'] for doubt in against[:LISTED]
        ]
        head = ['Image', 'Label', 'Evidence of a defect', 'Against its label']
        title = 'All of them as a list' if len(against) <= LISTED else f'The first {LISTED} of them as a list'
        text += page.details(title, page.table(head, rows, 'Doubtful labels'))
    return text


def evidence_of(run: Run) -> tuple[list[list[dict]], Stage | None]:
    """The entries of each source of evidence on the training images, and the stage that the first one belongs to.

    The sources are the cross-fitted parts, where there are any, none of which had seen its images; else one store.
    """
    stores = [(_entries(place), stage) for place, stage in stores_of(run)]
    stores = [store for store in stores if any('evidence' in entry and 'label' in entry for entry in store[0])]
    chosen = [store for store in stores if store[1] and store[1].left_out] or stores[:1]
    return [entries for entries, _ in chosen], chosen[0][1] if chosen else None


def _whose(stage: Stage | None) -> str:
    if stage and stage.left_out:
        return 'The evidence of each image comes from a model that has not trained on it.'
    if stage is None:
        return (
            'The evidence comes from a store that was given. Whether its model has trained on these images is unknown.'
        )
    return (
        f'The evidence comes from {stage.name}, a model that has trained on these very images. It may have learned a '
        'wrong label by heart, so a label that is not listed may still be wrong. With crossfit=5 in the config the '
        'evidence comes from models that have not trained on the image.'
    )


def _says(doubt: Doubt) -> str:
    return f'{doubt.key}: labelled {_label(doubt)}, {doubt.against:+.2f} against it'


def _label(doubt: Doubt) -> str:
    return 'defective' if doubt.label else 'good'


def priors_section(run: Run, splits: Splits) -> str:
    """One block a store: its quality in a line, faults, trust, and the maps that are trusted least."""
    parts = []
    paths = None
    for place, stage in stores_of(run):
        parts.append(f'<h3>{page.escape(stage.name if stage else str(place))}</h3>')
        try:
            store = PriorStore(place)
            layers = store.layers()
        except Exception as error:  # an unreadable store is said, and the rest of the report is drawn
            parts.append(page.sentence(f'The store cannot be read: {first_line(error)}.'))
            continue
        for layer in layers:
            entries = _entries(place, layer)
            name = f'Layer {layer}: ' if len(layers) > 1 else ''
            if not entries:
                parts.append(page.sentence(f'{name}There are no maps.'))
                continue
            edited = sum(bool(entry.get('edited')) for entry in entries)
            by_hand = f' {edited} of them are edited by hand.' if edited else ''
            parts.append(page.sentence(f'{name}{summary(entries)}.{by_hand}'))
            if any('quality' in entry for entry in entries):
                parts.append(page.note(QUALITY))
            parts += [page.note(f'Warning: {warning}.') for warning in warnings_of(entries)]
            parts.append(_trust(run, place, stage, entries, is_judged_by_skill(store.source(layer))))
            chosen = least_trusted(entries, MAPS)
            if chosen:
                paths = _paths(run, splits) if paths is None else paths
                items = [(_map(store, layer, entry, paths), entry['key'], _agreement(entry)) for entry in chosen]
                parts.append(page.note('The maps of defective images that agree least under flips:'))
                parts.append(page.tiles(items).replace('class="tiles"', 'class="tiles maps"', 1))
    if not parts:
        return page.sentence('This run has neither made nor read priors.')
    return ''.join(parts)


def _trust(run: Run, place: Path, stage: Stage | None, entries: list[dict], by_skill: bool) -> str:
    text = ''
    for reader in read_by(run, place):
        if reader.trust is not None:
            text += page.sentence(f'{reader.name} trusts them by {reader.trust:.2f}, from 0 for not at all to 1.')
    labelled = [entry for entry in entries if 'label' in entry]
    if labelled:
        validation = stage.metrics.get('val') if stage else None
        labels = [entry['label'] for entry in labelled]
        found = judge(labelled, labels, validation, bool(stage and stage.left_out), by_skill)
        text += page.note(f'What is known of their source: {found.reason}.')
    return text


def _agreement(entry: dict) -> str:
    quality = entry.get('quality')
    inside = f', {quality["energy"]:.0%} inside the mask' if quality else ''
    return f'{entry["key"]}: agreement {entry["trust"]:.2f}{inside}'


def _entries(place: Path, layer: str | None = None) -> list[dict]:
    """What is known of the maps of a layer, by default of the first one; nothing where the store cannot be read."""
    try:
        store = PriorStore(place)
        layer = layer or store.layers()[0]
        return [store.entry(key, layer) for key in store.keys(layer)]
    except Exception:  # it is said where the store has its section
        return []


def _paths(run: Run, splits: Splits) -> dict[str, dict]:
    """What is known of the training images, by the keys of their maps."""
    found: dict[str, dict] = {}
    for stage in run.stages:
        infos = splits.infos(stage, 'train')
        if infos and not stage.left_out:
            keys = keys_of(list(infos), splits.dataset(stage, 'train').data_root)
            found = dict(zip(keys, infos.values(), strict=True)) | found
    return found


def _thumbnail(paths: dict[str, dict], key: str) -> str | None:
    return thumbnail(paths[key]['img_path']) if key in paths else None


def _map(store: PriorStore, layer: str, entry: dict, paths: dict[str, dict]) -> str | None:
    info = paths.get(entry['key'])
    image = decode(info['img_path']) if info else None
    if image is None:
        return None
    try:
        mask = read_mask(info['mask_path']) if info.get('mask_path') else None
        return embed(overlay(shrunk(image), store.read(entry['key'], layer), mask), LARGE)
    except Exception:  # a map that is damaged leaves its place empty
        return None
