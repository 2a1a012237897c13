"""Descriptions as files: a list of records, or of sentences, in YAML."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml

from kgl_mm.errors import UsageError, first_line

from .record import Description

FIELDS = {field.name: field.default is MISSING for field in fields(Description)}
SHIPPED = Path(__file__).parent


def load_descriptions(path: str | Path) -> list[Description]:
    """The descriptions of a YAML file, or those that the package ships under a name, such as ``'metal'``.

    >>> [record.kind for record in load_descriptions('metal')][:2]
    ['crack', 'scratch']
    """
    path = Path(path).expanduser()
    shipped = SHIPPED / f'{path}.yaml'
    if path.name == str(path) and not path.is_file() and shipped.exists():
        return _read(shipped, str(path))
    return _read(path, str(path))


def as_descriptions(given: str | Path | Description | dict | Sequence) -> list[Description]:
    """Descriptions as options of configs have them: a file or name, or records, dicts and sentences in a list."""
    if isinstance(given, Path) or (isinstance(given, str) and is_file_name(given)):
        return load_descriptions(given)
    entries = given if isinstance(given, list | tuple) else [given]
    return _records(entries, 'descriptions')


def is_file_name(given: str) -> bool:
    """Whether it names a file or shipped descriptions, and is no sentence.

    >>> is_file_name('metal'), is_file_name('my defects.yaml'), is_file_name('a dark line')
    (True, True, False)
    """
    return ' ' not in given.strip() or given.lower().endswith(('.yaml', '.yml')) or Path(given).is_file()


@cache
def shipped_kinds() -> dict[str, Description]:
    """What the package knows of kinds, by their names."""
    return {record.kind: record for record in _read(SHIPPED / 'metal.yaml', 'metal')}


def _read(path: Path, name: str) -> list[Description]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        known = ', '.join(sorted(file.stem for file in SHIPPED.glob('*.yaml')))
        reason = getattr(error, 'strerror', None) or 'it is no text'
        raise UsageError(
            f'{path}: cannot be read ({reason}); give a YAML file of descriptions, or the name of shipped ones: {known}'
        ) from None
    try:
        entries = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of dates, of numbers, of many brackets
        mark = getattr(error, 'problem_mark', None)
        line = f', line {mark.line + 1}' if mark else ''
        raise UsageError(f'{name}{line}: not YAML ({getattr(error, "problem", None) or first_line(error)})') from None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{name}: not a list of descriptions, each of which begins with "- kind: ..."')
    return _records(entries, name)


def _records(entries: Sequence, source: str) -> list[Description]:
    if not entries:
        raise UsageError(f'{source}: there is none')
    return [_record(entry, f'{source}, entry {number}') for number, entry in enumerate(entries, 1)]


def _record(entry: object, place: str) -> Description:
    if isinstance(entry, Description):
        return entry
    try:
        if isinstance(entry, str):
            return _of_sentence(entry)
        if not isinstance(entry, dict):
            raise UsageError('neither a record (fields and values) nor a sentence')
        place += f' ({entry["kind"]})' if isinstance(entry.get('kind'), str) else ''
        for name in entry:
            if name not in FIELDS:
                near = get_close_matches(str(name), FIELDS, 1)
                hint = f', meant is {near[0]}' if near else ''
                raise UsageError(f'{name}: no such field{hint}; there are {", ".join(FIELDS)}')
        if missing := [name for name, needed in FIELDS.items() if needed and name not in entry]:
            raise UsageError(f'{missing[0]} is missing')
        if empty := [name for name, value in entry.items() if value is None]:
            raise UsageError(f'{empty[0]} has no value; give one, or leave the field out')
        return Description(**entry)
    except UsageError as error:
        raise UsageError(f'{place}: {error}') from None


def _of_sentence(sentence: str) -> Description:
    from .parser import parse, suggestions  # which asks for the shipped kinds

    record, left = parse(sentence)
    if left:
        raise UsageError(f'not understood in {sentence!r}: {suggestions(left)}')
    return record


class _Loader(yaml.SafeLoader):
    """A field that is given twice is a mistake, of which plain YAML keeps the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        own = [key for key, _ in node.value if key.tag != 'tag:yaml.org,2002:merge']
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.MarkedYAMLError(problem=f'{twice[0]} is given twice', problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)
