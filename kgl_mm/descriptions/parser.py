"""From an English sentence to a record, and to the words that were not understood."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache

from kgl_mm.errors import UsageError

from .files import shipped_kinds
from .record import MOST, Description, in_proportion, proportions_of, usual
from .vocabulary import (
    ARTICLES,
    FILLING,
    LOOKALIKES,
    NOT,
    NUMBERS,
    ORIENTATIONS,
    ROUND,
    SCALES,
    SHAPES,
    STRONGER,
    WEAKER,
    plural,
    table,
)

EXAMPLE = 'steel plate with crack defect, it appears as a thin dark line'
UNIT = r'percent|times|px|pixels?|deg(?:rees?)?|inch(?:es)?|microns?|(?:micro|milli|centi)?met(?:er|re)s?|[nmcµuk]?m'
MEASURE = rf'\d+(?:[.,]\d+)?[\s-]*(?:[%°"″]|(?:{UNIT})\b)|\d+[.,]\d+'
WORD = re.compile(rf"{MEASURE}|[^\W_]+(?:'[^\W_]+)?", re.I)
NAMED = re.compile(r'(?P<object>[^,.;:]*?)\bwith\s+(?P<kind>(?:(?!\bwith\b)[^,.;:])*?)\s*\bdefects?\b', re.I)
PLACED = re.compile(
    r'\b(?:on|upon)\s+(?P<object>[^,.;:]+?)(?=\s+(?:it|that|which|appears?|looks?|is|are|as|with)\b|[,.;:]|$)', re.I
)
STARTS = re.compile(r'.*\b(?:appears?|looks?|as|like|on|upon|is|are)\b', re.I | re.S)
SWAPPED, MISCOUNTED, MISTAKEN = 4, 5, 7
"""Letters of a word of which two may be in the wrong order, of which one may be too many or too few, or wrong."""
LONGEST = 3  # words of a phrase
MOST_LETTERS = 1000


def parse(sentence: str) -> tuple[Description, list[str]]:
    """The record of a sentence, and the words of it that were not understood, in their order.

    The sentence has the form ``OBJECT with KIND defect, it appears as FEATURES``; the order of its parts and of the
    features is free, and so is their number. A kind that the package ships is the start, and features change it; of
    any other its words are, such as those of a deep scratch; what is not said is usual. ``KIND on OBJECT`` and a kind
    among the features are understood too. A measure, such as 0.5 mm, is left over, since images have no scale.

    A slip of the finger is forgiven where the first letter is right and words of one meaning only come into question:
    two letters in the wrong order in a word of four letters and more, one too many or too few of five, a wrong one of
    seven. Of two words that contradict each other the second is left over, and so are a negation and what it denies.

    Raises:
        UsageError: nothing in it says what the defect looks like.

    >>> record, left = parse('rusty plate with flaw defect, it appears as two very thin wiggly dark lines')
    >>> record.kind, record.shape, record.count, record.width, left
    ('flaw', 'line', (2, 2), (0.003, 0.007), ['wiggly'])
    """
    if not isinstance(sentence, str) or not sentence.strip():
        raise UsageError(f'{sentence!r}: not a sentence that describes a defect, such as "{EXAMPLE}"')
    if len(sentence) > MOST_LETTERS:
        raise UsageError(f'{_short(sentence)}: it has {len(sentence)} letters, of {MOST_LETTERS} at most')
    thing, kind, rest = _names(' '.join(sentence.split()))
    known = _known_kind(kind) if kind else None
    found, left, nouns = _features(rest)
    if kind and known is None:
        said, _, nouns = _features(kind)
        found = said | found
    if known is None and not found:
        raise UsageError(
            f'{_short(sentence)}: no word of it says what the defect looks like; write, for example, "{EXAMPLE}"'
        )
    if known is None:
        among = [found.pop('kind', None), *nouns]
        known = next((record for name in among if name and (record := _known_kind(name))), None)
    kind = known.kind if known and (kind is None or _known_kind(kind)) else kind or _plain((nouns or ['flaw'])[0])
    names = dict(object=thing or 'surface', kind=kind)
    try:
        return _record(names, known, found), left
    except UsageError as error:
        raise UsageError(f'{_short(sentence)}: {error}') from None


def suggestions(words: list[str]) -> str:
    """Words that were not understood, each with the nearest one of the vocabulary.

    >>> suggestions(['briht', 'xyz'])
    'briht (bright?), xyz'
    """
    near = ((word, get_close_matches(word.lower(), _phrases(), 1)) for word in words)
    return ', '.join(f'{word} ({close[0]}?)' if close else word for word, close in near)


def _names(sentence: str) -> tuple[str | None, str | None, str]:
    """Object and kind, where they are named, and the rest of the sentence."""
    thing = kind = None
    if match := NAMED.search(sentence):
        kind = _bare(match['kind']) or None
        before = STARTS.match(match['object'])
        cut = before.end() if before else 0
        thing = _bare(match['object'][cut:])
        rest = match['object'][:cut]
        sentence = f'{sentence[: match.start()]} {rest}, {sentence[match.end() :]}'
    if not thing and (match := PLACED.search(sentence)):
        thing = _bare(match['object'])
        sentence = f'{sentence[: match.start()]}, {sentence[match.end() :]}'
    return thing or None, kind, sentence


def _features(text: str) -> tuple[dict[str, str], list[str], list[str]]:
    """By field the names of its values, what was not understood, and the nouns that gave a shape."""
    words = [word.replace('-', ' ') for word in WORD.findall(text)]
    found, left, nouns = {}, [], []
    degree = denied = None
    at = 0
    while at < len(words):
        length, meaning = _longest(words[at:])
        said, at = words[at : at + length], at + length
        if meaning is None:
            if said[0].lower() in NOT:
                denied = said
            elif said[0].lower() in (*STRONGER, *WEAKER):
                left += degree or []
                degree = said
            elif said[0].lower() not in FILLING:
                left += said
            continue
        if denied:
            left += denied + (degree or []) + said
        else:
            left += _take(found, *meaning, said, degree)
            if meaning[0] == 'shape':
                nouns.append(said[-1].lower())
        degree = denied = None
    return found, _as_said(words, left + (denied or []) + (degree or [])), nouns


def _as_said(words: list[str], some: list[str]) -> list[str]:
    """Some of the words, in their order."""
    left = Counter(some)
    ordered = []
    for word in words:
        if left[word]:
            left[word] -= 1
            ordered.append(word)
    return ordered


def _take(found: dict[str, str], field: str, name: str, said: list[str], degree: list[str] | None) -> list[str]:
    """Note a value; the words that fit nothing."""
    if field == 'shape' and said[-1].lower().endswith('s') and said[-1].lower() != name:
        found.setdefault('plural', 'several')
    if field == 'tone' and found.get('tone', name) != name:
        name = found['tone'] = 'mixed'
    if degree and field == 'tone' and 'contrast' not in found:
        found['contrast'] = 'strong' if degree[0].lower() in STRONGER else 'faint'
        degree = None
    elif degree and name in SCALES.get(field, ()):
        name, degree = _shifted(field, name, degree[0].lower() in STRONGER), None
    if found.setdefault(field, name) != name:
        return (degree or []) + said
    return degree or []


def _shifted(field: str, name: str, stronger: bool) -> str:
    """A step further from the middle of a scale, or a step back, though not to what nobody mentions.

    >>> _shifted('length', 'large', True), _shifted('length', 'very large', False), _shifted('width', 'thin', False)
    ('very large', 'large', 'thin')
    """
    names = list(SCALES[field])
    middle = (len(names) - 1) / 2
    place = names.index(name)
    outwards = 1 if place > middle else -1 if place < middle else 0
    moved = place + (outwards if stronger else -outwards)
    return name if not 0 <= moved < len(names) or moved == middle else names[moved]


def _record(names: dict[str, str], known: Description | None, found: dict[str, str]) -> Description:
    base = replace(known, **names) if known else Description(**names, shape=found.get('shape', 'blob'))
    shape = found.get('shape', base.shape)
    changed = dict(shape=shape)
    for field in ('tone', 'edge', 'texture'):
        if field in found:
            changed[field] = found[field]
    if 'orientation' in found:
        changed['orientation'] = ORIENTATIONS[found['orientation']]
    if 'contrast' in found:
        changed['contrast'] = SCALES['contrast'][found['contrast']]
    count = found.get('count') or (found.get('plural') if base.count == (1, 1) else None)
    if count:
        changed['count'] = SCALES['count'][count] if count in SCALES['count'] else (int(count), int(count))
    same = shape == base.shape
    if 'length' in found or not same:
        changed['length'] = SCALES['length'][found['length']] if 'length' in found else usual(shape, 'length')
    if width := _width(shape, base if same else None, found, changed.get('length', base.length)):
        changed['width'] = width
    return replace(base, **changed)


def _width(shape: str, base: Description | None, found: dict[str, str], length: tuple) -> tuple | None:
    """None for that of the base."""
    if shape not in ROUND:
        return SCALES['width'][found['width']] if 'width' in found else None if base else usual(shape, 'width')
    if 'proportions' in found:
        return in_proportion(length, found['proportions'])
    if 'width' in found:
        place = list(SCALES['width']).index(found['width'])
        return in_proportion(length, list(SCALES['proportions'])[min(place, 3)])
    if base is None:
        return usual(shape, 'width', length)
    return in_proportion(length, proportions_of(base)) if 'length' in found else None


def _longest(words: list[str]) -> tuple[int, tuple[str, str] | None]:
    """How many of the first words are one phrase, and what it means."""
    for length in range(min(LONGEST, len(words)), 0, -1):
        phrase = ' '.join(words[:length]).lower()
        if phrase in _phrases():
            return length, _phrases()[phrase]
        if _plain(phrase) in _kinds():
            return length, ('kind', _plain(phrase))
    word = words[0].lower()
    if word.isdecimal() and len(word) <= len(str(MOST)) and 1 <= int(word) <= MOST:
        return 1, ('count', word)
    if word in FILLING or word in NOT or word in STRONGER or word in WEAKER:
        return 1, None
    meanings = {_phrases()[near] for near in _slips(word, _phrases())}
    return 1, meanings.pop() if len(meanings) == 1 else None


@cache
def _phrases() -> dict[str, tuple[str, str]]:
    """The vocabulary with its plurals, numbers and the names of values themselves."""
    known = table()
    for phrase, (field, name) in table().items():
        if field == 'shape' or phrase.endswith(' edge'):
            known[plural(phrase)] = field, name
    known |= {word: ('count', str(number)) for number, word in enumerate(NUMBERS, 2)}
    known.pop('very many')  # as any adverb
    return known


def _slips(word: str, known: Iterable[str]) -> list[str]:
    """The known words that one slip of the finger makes of this one."""
    return [near for near in known if _is_slip(word, near)]


def _is_slip(word: str, other: str) -> bool:
    """Whether one letter is too many, too few or wrong, or two are in the wrong order.

    >>> _is_slip('crakc', 'crack'), _is_slip('brigt', 'bright'), _is_slip('track', 'crack'), _is_slip('pitch', 'patch')
    (True, True, False, False)
    """
    if word[:1] != other[:1] or word in LOOKALIKES:
        return False
    start = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    one, two = word[start:], other[start:]
    return (
        (len(word) >= SWAPPED and one[:2] == two[1::-1] and one[2:] == two[2:])
        or (len(word) >= MISCOUNTED and (one[1:] == two or one == two[1:]))
        or (len(word) >= MISTAKEN and one[1:] == two[1:])
    )


def _known_kind(name: str) -> Description | None:
    if name.lower() in SHAPES:  # a patch is a shape, patches are a kind
        return None
    plain, kinds = _plain(name), _kinds()
    near = [plain] if plain in kinds else _slips(plain, kinds)
    return kinds[near[0]] if len(near) == 1 else None


@cache
def _kinds() -> dict[str, Description]:
    return {_plain(kind): record for kind, record in shipped_kinds().items()}


def _plain(name: str) -> str:
    """Without hyphens and the ending of a plural."""
    name = name.lower().replace('-', ' ')
    return re.sub(r'(?<=ch|sh|ss)es$|(?<!s)s$', '', name)


def _bare(text: str) -> str:
    """Without articles before it and without signs."""
    words = re.sub(r"[^\w\s'-]|_", ' ', text).split()
    while words and words[0].lower() in ARTICLES:
        words = words[1:]
    return ' '.join(words)


def _short(sentence: str) -> str:
    told = repr(sentence)  # in which a character may be ten
    return told if len(told) <= 82 else f'{told[:78]}...{told[0]}'
