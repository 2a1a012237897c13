import json
from collections.abc import Iterable
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.progress import track

from kgl_mm.registry import DATASETS

from .defect_dataset import DefectDataset, Sample
from .kolektor_sdd import find_parts
from .synthetic import SurfaceSettings, write_surfaces


@DATASETS.register_module()
class SyntheticSurface(DefectDataset):
    """Brushed and grained surfaces, drawn on first use and kept on the disk in the layout of KolektorSDD.

    Good and defective parts carry marks of the same size and contrast; what makes a defect is its direction and rim.
    Train, validation and test parts are cut by unit. In a distributed run every process draws and the first to finish
    leaves its folder: all of them would be the same.

    Args:
        data_root: by default a folder of ``data/synthetic_surface/`` named after the settings.
        num_train: good and defective images; so for ``num_val`` and ``num_test``.
        size: height and width of an image.
        difficulty: in [0, 1]; weakens and shrinks all marks and brings defects nearer to harmless ones.
        surface_seed: of all pixels; ``seed`` chooses among what is there, as for every :class:`DefectDataset`.
        **kwargs: as for :class:`DefectDataset`.
    """

    def __init__(
        self,
        data_root: str | None = None,
        num_train: tuple[int, int] = SurfaceSettings.num_train,
        num_val: tuple[int, int] = SurfaceSettings.num_val,
        num_test: tuple[int, int] = SurfaceSettings.num_test,
        size: tuple[int, int] = SurfaceSettings.size,
        difficulty: float = SurfaceSettings.difficulty,
        surface_seed: int = SurfaceSettings.seed,
        **kwargs,
    ) -> None:
        self.settings = SurfaceSettings(num_train, num_val, num_test, size, difficulty, surface_seed)
        super().__init__(data_root or str(Path('data/synthetic_surface', self.settings.folder_name)), **kwargs)

    def load_data_list(self) -> list[dict]:
        write_surfaces(self.data_root, self.settings, self._show_progress)
        return super().load_data_list()

    def _show_progress(self, plan: list) -> Iterable:
        print_log(f'Drawing {len(plan)} surfaces into {self.data_root}', logger='current')
        return track(plan, 'drawing surfaces') if len(plan) > 500 and is_main_process() else plan

    def find_samples(self) -> list[Sample]:
        units = json.loads(Path(self.data_root, 'settings.json').read_text())['units']
        split_of = {unit: split for split, members in units.items() for unit in members}
        return [
            Sample(str(image), label, str(mask), image.parent.name, split_of[image.parent.name])
            for image, mask, label in find_parts(self.data_root)
        ]
