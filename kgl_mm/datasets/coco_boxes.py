import json
from pathlib import Path

from kgl_mm.errors import UsageError, check_choice
from kgl_mm.registry import DATASETS

from .box_dataset import BoxDataset, Boxed
from .defect_dataset import SPLITS


@DATASETS.register_module()
class CocoBoxes(BoxDataset):
    """Images with boxes in a JSON file of COCO, such as ``tools/boxes_from_priors.py`` writes.

    Args:
        ann_file: the file, here or in ``data_root``; or one a split, ``dict(train=..., val=..., test=...)``.
        data_root: the folder that file names start from; by default that of the file.
        **kwargs: as for :class:`BoxDataset`; ``classes`` are by default all categories of the files, sorted.
    """

    MISSING = 'pass the folder that the file names of ann_file start from: --data DIR, or data_root='

    def __init__(self, ann_file: str | dict[str, str], data_root: str | None = None, **kwargs) -> None:
        self.files = ann_file if isinstance(ann_file, dict) else {None: ann_file}
        for split in self.files.keys() - {None}:
            check_choice(SPLITS, ann_file=split)
        self.categories = set()
        super().__init__(data_root or str(Path(next(iter(self.files.values()))).parent), **kwargs)

    def find_boxes(self) -> list[Boxed]:
        return [image for split, file in self.files.items() for image in self._read(file, split)]

    def _read(self, file: str, split: str | None) -> list[Boxed]:
        path = Path(file).expanduser()
        path = path if path.is_file() else Path(self.data_root, file)
        try:
            content = json.loads(path.read_text())
            names = {category['id']: str(category['name']) for category in content['categories']}
            self.categories |= set(names.values())
            boxes = {image['id']: [] for image in content['images']}
            if len(boxes) < len(content['images']):
                raise ValueError('two images have one id')
            for one in content['annotations']:
                if one.get('iscrowd'):
                    raise ValueError('iscrowd: the box of a crowd is not that of one object, take it out')
                for field, known in (('image_id', boxes), ('category_id', names)):
                    if one[field] not in known:
                        raise ValueError(f'an annotation has {field} {one[field]!r}, which is nowhere else')
                left, top, width, height = map(float, one['bbox'])
                boxes[one['image_id']].append(((left, top, left + width, top + height), names[one['category_id']]))
            return [
                Boxed(
                    img_path=Path(self.data_root, image['file_name']).as_posix(),
                    boxes=tuple(box for box, _ in boxes[image['id']]),
                    names=tuple(name for _, name in boxes[image['id']]),
                    size=(image['width'], image['height']) if 'width' in image else None,
                    split=split,
                    source=f'{file}, {image["file_name"]}',
                )
                for image in content['images']
            ]
        except OSError as error:
            raise UsageError(f'{file}: cannot be read ({error.strerror})') from None
        except KeyError as error:
            raise UsageError(f'{path}: not a file of COCO boxes, since it lacks {error}') from None
        except (ValueError, TypeError) as error:
            raise UsageError(f'{path}: not a file of COCO boxes ({error})') from None
