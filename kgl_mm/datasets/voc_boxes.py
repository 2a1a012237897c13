import os
from pathlib import Path
from xml.etree import ElementTree

from kgl_mm.errors import UsageError, check_choice
from kgl_mm.image_files import HIDDEN, find_images
from kgl_mm.registry import DATASETS

from .box_dataset import BoxDataset, Boxed
from .checks import some
from .defect_dataset import SPLITS

IMAGES, ANNOTATIONS = ('images', 'jpegimages'), ('annotations',)


@DATASETS.register_module()
class VocBoxes(BoxDataset):
    """A folder of images and a folder of XML files of the same names, as in Pascal VOC and NEU-DET.

    ::

        ROOT/IMAGES/*.jpg  ROOT/ANNOTATIONS/*.xml     (or JPEGImages/ and Annotations/, in any case)
        ROOT/ImageSets/Main/train.txt, val.txt, test.txt     names of images, where the split is given

    Pixels are counted from 1 there, both ends inside, so that ``xmin=1, xmax=200`` is all of 200 pixels.

    Args:
        data_root: the folder; by default ``$KGL_DATA_ROOT/NAME``, else ``data/NAME``.
        name: see above, such as ``'NEU-DET'``.
        missing: of an image without an XML file: ``'error'``, or ``'empty'``, that it has no boxes.
        **kwargs: as for :class:`BoxDataset`.
    """

    MISSING = 'pass the folder that holds IMAGES/ and ANNOTATIONS/: --data DIR, or data_root='

    def __init__(self, data_root: str | None = None, name: str = 'VOC', missing: str = 'error', **kwargs) -> None:
        check_choice(('error', 'empty'), missing=missing)
        self.missing = missing
        super().__init__(data_root or str(Path(os.environ.get('KGL_DATA_ROOT') or 'data', name)), **kwargs)

    def find_boxes(self) -> list[Boxed]:
        folder, annotations = self._folder(IMAGES), self._folder(ANNOTATIONS)
        images = {}
        for path in find_images(folder):
            name = Path(path).relative_to(folder).with_suffix('').as_posix()
            if images.setdefault(name, path) != path:
                raise UsageError(f'{images[name]} and {path}: two images of one name; give one of them another')
        visible = (path for path in annotations.rglob('*.xml') if not path.name.startswith(HIDDEN))
        files = {path.relative_to(annotations).with_suffix('').as_posix(): path for path in visible}
        if orphans := sorted(files.keys() - images.keys()):
            number = f'{len(orphans)} files of annotations' if len(orphans) > 1 else 'a file of annotations'
            raise UsageError(f'{folder}: no image for {number} ({some([f"{name}.xml" for name in orphans], most=3)})')
        lacking = sorted(images.keys() - files.keys())
        if lacking and self.missing == 'error':
            raise UsageError(
                f'{annotations}: no XML file for {len(lacking)} of {len(images)} images ({some(lacking, most=3)}); '
                "write one without objects where there are no boxes, or set missing='empty'"
            )
        splits = self._lists(images)
        return [
            Boxed(path, split=splits.get(name), **(_read(files[name]) if name in files else dict(boxes=(), names=())))
            for name, path in images.items()
            if not splits or name in splits
        ]

    def _folder(self, names: tuple[str, ...]) -> Path:
        there = sorted(path for path in Path(self.data_root).iterdir() if path.is_dir())
        if found := [path for path in there if path.name.lower() in names]:
            return found[0]
        held = some([path.name for path in there]) or 'nothing'
        raise UsageError(f'{self.data_root}: no folder {names[0]}; {self.MISSING} (it holds {held})')

    def _lists(self, images: dict[str, str]) -> dict[str, str]:
        """The split of each image that is in a list."""
        splits = {}
        for split in SPLITS:
            file = Path(self.data_root, 'ImageSets', 'Main', f'{split}.txt')
            lines = file.read_text(encoding='utf-8-sig').splitlines() if file.is_file() else []
            names = [name for line in lines if (name := line.strip())]
            if unknown := [name for name in names if name not in images]:
                raise UsageError(f'{file}: there is no image of {len(unknown)} of its names ({some(unknown, most=3)})')
            splits |= dict.fromkeys(names, split)
        return splits


def _read(path: Path) -> dict:
    """What an XML file says of its image."""
    try:
        root = ElementTree.parse(path).getroot()
        boxes, names = [], []
        for one in root.iter('object'):
            left, top, right, bottom = (
                float(one.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax')
            )
            boxes.append((left - 1, top - 1, right, bottom))
            names.append(one.findtext('name').strip())
        size = tuple(int(root.findtext(f'size/{side}', '0')) for side in ('width', 'height'))
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UsageError(f'{path}: not a file of VOC boxes ({error})') from None
    return dict(boxes=tuple(boxes), names=tuple(names), size=size if all(size) else None, source=str(path))
