"""The words of descriptions and what they stand for; the table of docs/descriptions.md is made of these."""

import math


def _words(text: str) -> list[str]:
    return text.split()


SHAPES = ('line', 'blob', 'patch', 'band', 'ring')
TONES = ('dark', 'bright', 'mixed')
EDGES = ('sharp', 'soft')
TEXTURES = ('smooth', 'rough', 'speckled')
ROUND = ('blob', 'patch')
"""Shapes whose width is told by their proportions: round, oval, elongated."""

SCALES = {
    'contrast': {
        'very faint': (0.04, 0.08),
        'faint': (0.08, 0.18),
        'clear': (0.18, 0.4),
        'strong': (0.4, 0.7),
        'very strong': (0.7, 0.95),
    },
    'length': {
        'very small': (0.01, 0.03),
        'small': (0.03, 0.1),
        'medium': (0.1, 0.3),
        'large': (0.3, 0.7),
        'very large': (0.7, 1.5),
    },
    'width': {
        'very thin': (0.003, 0.007),
        'thin': (0.007, 0.02),
        'moderately wide': (0.02, 0.05),
        'wide': (0.05, 0.15),
        'very wide': (0.15, 0.4),
    },
    'proportions': {'very elongated': 0.15, 'elongated': 0.3, 'oval': 0.6, 'round': 1.0},
    'count': {'a single': (1, 1), 'a few': (2, 4), 'several': (4, 8), 'many': (8, 20), 'very many': (20, 50)},
}
"""From the least to the most, in the middle what nobody mentions."""

ORIENTATIONS = {
    'horizontal': (-10.0, 10.0),
    'diagonal': (35.0, 55.0),
    'vertical': (80.0, 100.0),
    'at any angle': 'any',
}

DEFAULTS = {
    'line': ('medium', 'thin'),
    'blob': ('small', 'round'),
    'patch': ('medium', 'oval'),
    'band': ('very large', 'wide'),
    'ring': ('medium', 'thin'),
}
"""Length and width of a shape where nothing is said of them."""

NUMBERS = _words('two three four five six seven eight nine ten eleven twelve')
ARTICLES = ('a', 'an', 'the', 'some')
RESERVED = {*ARTICLES, *_words('with defect defects on upon appear appears look looks as like is are it that which')}
"""No words of an object or a kind, since a sentence is cut at them."""

SYNONYMS = {
    'shape': {
        'line': 'line, stroke, streak, scratch, crack, fissure, hairline, thread, groove',
        'blob': 'blob, spot, dot, pit, hole, speck, dent, bump, drop, droplet, particle, inclusion',
        'patch': 'patch, area, region, stain, zone, flake',
        'band': 'band, strip, stripe, bar, belt',
        'ring': 'ring, circle, halo, loop',
    },
    'tone': {
        'dark': 'dark, darker, black, blackish, shadowy',
        'bright': 'bright, brighter, light, lighter, white, whitish, shiny',
        'mixed': 'mixed, dark and bright, bright and dark, light and dark, dark and light',
    },
    'contrast': {
        'faint': 'faint, weak, slight, subtle, low contrast, barely visible, pale',
        'clear': 'clear, distinct, visible, medium contrast',
        'strong': 'strong, high contrast, intense, striking, deep',
    },
    'length': {
        'very small': 'tiny, minute',
        'small': 'small, short, little',
        'medium': 'medium, medium sized, medium long, middle sized',
        'large': 'large, long, big',
        'very large': 'huge, endless',
    },
    'width': {
        'very thin': 'hair thin',
        'thin': 'thin, narrow, fine, slender',
        'moderately wide': 'moderately wide, medium wide',
        'wide': 'wide, broad, thick',
    },
    'proportions': {
        'elongated': 'elongated, stretched, drawn out',
        'oval': 'oval, elliptical',
        'round': 'round, roundish, compact',
    },
    'orientation': {
        'horizontal': 'horizontal, horizontally, lying',
        'diagonal': 'diagonal, diagonally, slanting, oblique',
        'vertical': 'vertical, vertically, upright',
        'at any angle': 'at any angle, at all angles, in any direction, in all directions, random, randomly',
    },
    'edge': {
        'sharp': 'sharp, sharply, crisp, sharp edge, hard edge, clean edge, well defined',
        'soft': 'soft, softly, blurred, blurry, fuzzy, diffuse, soft edge, smooth edge',
    },
    'texture': {
        'smooth': 'smooth, smoothly, even, uniform, plain, straight',
        'rough': 'rough, ragged, jagged, irregular, uneven, zigzag, coarse, rough edge, ragged edge, irregular edge',
        'speckled': 'speckled, spotted, grainy, mottled, porous, broken',
    },
    'count': {
        'a single': 'single, one, lone',
        'a few': 'few',
        'several': 'several, multiple',
        'many': 'many, numerous',
        'very many': 'very many, countless, dozens',
    },
}
"""To each value of a field its words and phrases."""

STRONGER = _words('very extremely highly strongly')
WEAKER = _words('slightly lightly quite somewhat rather fairly weakly faintly')
NOT = _words('not no without never hardly')
FILLING = set(
    _words("""
    a an and appear appearance appearing appears are as at be by contrast defect edge has have in is it its like look
    looking looks of or on seen shape shaped size sized some surface texture that the their there these they this to
    tone which with
    """)
)
"""Words that say nothing."""
LOOKALIKES = _words('arena bland board brand event grain patchy scratchy sport steak strain thing things think')
"""Words that a slip of the finger makes of ours, and that mean something else."""


def table() -> dict[str, tuple[str, str]]:
    """From each word or phrase to its field and its name there."""
    return {
        phrase: (field, name)
        for field, names in SYNONYMS.items()
        for name, phrases in names.items()
        for phrase in phrases.split(', ')
    }


def nearest(field: str, value: tuple[float, float] | float) -> str:
    """The name on a scale whose middle is nearest, by ratio."""
    scale = SCALES[field]
    return min(scale, key=lambda name: abs(_log_middle(scale[name]) - _log_middle(value)))


def nearest_orientation(value: tuple[float, float] | str) -> str:
    """The name of a range of angles; one of more than a right angle is any."""
    if value == 'any' or value[1] - value[0] > 90:
        return 'at any angle'
    middle = sum(value) / 2
    turned = {name: abs((middle - sum(at) / 2 + 90) % 180 - 90) for name, at in ORIENTATIONS.items() if at != 'any'}
    return min(turned, key=turned.get)


def plural(word: str) -> str:
    """As English has it, mostly.

    >>> plural('patch'), plural('line')
    ('patches', 'lines')
    """
    return word + ('es' if word.endswith(('ch', 'sh', 's', 'x')) else 's')


def _log_middle(value: tuple[float, float] | float) -> float:
    low, high = value if isinstance(value, tuple) else (value, value)
    return (math.log(low) + math.log(high)) / 2
