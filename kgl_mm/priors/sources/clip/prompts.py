"""What is said of good and of defective objects: states of an object in kinds of pictures."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kgl_mm.descriptions import Description, as_descriptions, load_descriptions, parse
from kgl_mm.errors import UsageError

GOOD = ('{}', 'clean {}', 'intact {}', 'faultless {}', 'brand-new {}', '{} in good order')
DEFECTIVE = ('faulty {}', 'defective {}', 'spoilt {}', '{} with a fault', '{} with a blemish', '{} to be rejected')
PICTURES = (
    'a photo of the {}.',
    'a close view of the {}.',
    'an enlarged detail of the {}.',
    'a well-lit picture of the {}.',
    'a picture of the {} in dim light.',
    'a grey picture of the {}.',
    'a sharp picture of the {}.',
    'a picture of the {}, out of focus.',
    'a picture of the {} by an inspection camera.',
    'a picture of the {} for quality control.',
)


def prompts(object: str, kinds: Sequence[str] = (), sentences: Sequence[str] = ()) -> tuple[list[str], ...]:
    """What is said of a good object, of a defective one, and of none at all, each state in each kind of picture.

    >>> good, defective, nothing = prompts('plate', ['crack'], ['plate with crack defect, it appears as a dark line'])
    >>> good[0], good[-10], defective[-10]
    ('a photo of the plate.', 'a photo of the plate free of any crack.', \
'a photo of the plate with crack defect, it appears as a dark line.')
    >>> len(good), len(defective), nothing[0]
    (70, 70, 'a photo of the .')
    """
    good = [state.format(object) for state in GOOD] + [f'{object} free of any {kind}' for kind in kinds]
    defective = [state.format(object) for state in DEFECTIVE] + [sentence.rstrip(' .') for sentence in sentences]
    groups = good, defective, ['']
    return tuple([picture.format(state) for state in states for picture in PICTURES] for states in groups)


def in_words(text: str) -> str:
    """Underscores stand for spaces, which options of a command lose.

    >>> in_words('metal_surface ')
    'metal surface'
    """
    return text.replace('_', ' ').strip()


def wordings(descriptions: str | Path | Sequence[str | Description] | None, object: str) -> tuple[list[str], list[str]]:
    """Kinds of defects and sentences about an object: of a file, of shipped descriptions by their name, or of a list.

    Records are about the object, whatever they were written for. A sentence in a list is taken as it is, also where the
    parser does not know all of its words; where it knows none there is no kind.

    >>> wordings(['plate with crack defect, it appears as a dark line', 'it looks odd'], 'tube')
    (['crack'], ['plate with crack defect, it appears as a dark line', 'it looks odd'])
    >>> wordings('metal', 'tube')[1][0][:38]
    'tube with crack defect, it appears as '
    """
    if isinstance(descriptions, str | Path):
        descriptions = load_descriptions(descriptions)
    kinds, sentences = [], []
    for number, description in enumerate(descriptions or (), 1):
        if isinstance(description, dict):
            (description,) = as_descriptions([description])
        if isinstance(description, Description):
            kinds.append(description.kind)
            sentences.append(object + description.sentence().removeprefix(description.object))
        elif isinstance(description, str) and (sentence := in_words(description)).count(' '):
            with suppress(UsageError):
                kinds.append(parse(sentence)[0].kind)
            sentences.append(sentence)
        else:
            raise UsageError(
                f'descriptions, entry {number}: {description!r} is no sentence; in a command write _ for spaces'
            )
    return list(dict.fromkeys(kinds)), sentences
