import hashlib
from collections.abc import Sequence

import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kgl_mm.errors import UsageError, check_number
from kgl_mm.models.pretrained import check_pretrained
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.registry import MODELS, PRIOR_SOURCES
from kgl_mm.saliency.base import FLIPS, full_precision, resize
from kgl_mm.saliency.layers import choose_layers, feature_map, named_layers
from kgl_mm.saliency.one_pass import undisturbed

from .base import PriorSource, inputs_of, naming_images, needed_good, quantile_of_good, shared_out, spread

ROWS = 256  # patches compared at once, so that their similarities stay in the cache


@PRIOR_SOURCES.register_module()
class PatchMemorySource(PriorSource):
    """How far each patch is from all patches of a few good images, by the features of a network that is not trained.

    ::

        d(y, x) = mean over layers of 1 - max over remembered patches p of cos(f(y, x), p)
        map     = d / (d + q)

    with q the ``quantile`` of the maxima of d over good images. A remembered image, known by the path of its data
    sample, is compared with the patches of the others, but with its own where no other is remembered; where there is a
    single good image, q comes of it flipped.

    Args:
        model: a trained network; the features are those of its backbone, of a detector those of its teacher.
        network: a backbone of its own instead, by its config; its weights are those of its ``init_cfg``, else random.
        layers: names of layers of the network, or ``'auto'``: the last at each of the ``depth`` deepest resolutions.
        depth: see above.
        k: good images that are remembered, evenly over the order of the data set; all where there are fewer.
        compare: good images, at most, that q is made of.
        quantile: see above.
        max_patches: of a layer that are remembered, evenly over all.
        seed: of random weights.
    """

    judged_by_skill = False
    NEEDS_GOOD = 'and PatchMemorySource remembers some'

    def __init__(
        self,
        model: nn.Module | None = None,
        network: dict | None = None,
        layers: str | Sequence[str] = 'auto',
        depth: int = 3,
        k: int = 10,
        compare: int = 50,
        quantile: float = 0.99,
        max_patches: int = 20000,
        seed: int = 0,
    ) -> None:
        check_number(1, whole=True, k=k, depth=depth, compare=compare)
        check_number(2, whole=True, max_patches=max_patches)
        check_number(0, 1, above=True, quantile=quantile)
        if model is None and network is None:
            raise UsageError('PatchMemorySource: give a model or the config of a network')
        if not isinstance(network, dict | None):
            raise UsageError(f'PatchMemorySource: network={network!r} is no config of one, such as dict(type=...)')
        self.network = _built(network, seed) if network else getattr(model, 'teacher', model)
        if network and (preprocessor := getattr(model, 'data_preprocessor', None)) is not None:
            self.network.to(preprocessor.device)
            self.network.data_preprocessor = preprocessor
        self.model = self.network if network else model
        if layers != 'auto':
            layers = [layers] if isinstance(layers, str) else list(layers)
            named_layers(self.network, layers)
        self.options = dict(
            network=network, depth=depth, k=k, compare=compare, quantile=quantile, max_patches=max_patches, seed=seed
        )
        self.layers = layers
        self.memory: list[torch.Tensor] = []
        self.owners: list[torch.Tensor] = []
        self.paths: list[str] = []
        self.scale = 1.0

    @staticmethod
    def needs_model(settings: dict) -> bool:
        return not settings.get('network')

    def settings(self) -> dict:
        return dict(super().settings(), layers=self.layers, **self.options)

    def weights(self) -> str:
        digest = hashlib.sha256(hash_of_model(self.model).encode())
        for part in self.memory:
            digest.update(part.cpu().numpy().tobytes())
        digest.update(repr(self.scale).encode())
        return digest.hexdigest()

    def prepare(self, images: torch.Tensor) -> None:
        if self.layers == 'auto':
            self.layers = choose_layers(self.network, images, self.options['depth'])

    def fit(self, dataset: BaseDataset) -> None:
        good = needed_good(dataset, self.NEEDS_GOOD)
        images, samples = inputs_of(self.model, pseudo_collate([dataset[good[0]]]))
        with naming_images(samples):
            self.prepare(images)
        kept = spread(good, self.options['k'])
        parts = []
        for index in kept:
            images, samples = inputs_of(self.model, pseudo_collate([dataset[index]]))
            with naming_images(samples):
                parts.append([feature.flatten(2)[0].T for feature in self.features(images)])
        self.memory, self.owners = [], []
        self.paths = [dataset.get_data_info(index)['img_path'] for index in kept]
        for layer in zip(*parts, strict=True):
            rows = torch.cat(layer)
            owner = torch.cat([torch.full((len(part),), n) for n, part in enumerate(layer)])
            chosen = torch.tensor(spread(range(len(rows)), self.options['max_patches']))
            self.memory.append(rows[chosen.to(rows.device)])
            self.owners.append(owner[chosen].to(rows.device))
        single = len(good) == 1
        others = [index for index in good if index not in kept or len(kept) > 1 or single]
        compared = spread(others, self.options['compare'])

        def look(images: torch.Tensor, indices: Sequence[int]) -> list[float]:
            if single:
                return [max(float(self.distance(images.flip(dims)).max()) for dims in FLIPS.values())]
            return [float(self.of_others(images, [dataset.get_data_info(indices[0])['img_path']]).max())]

        peaks = shared_out(look, self.model, dataset, compared)
        self.scale = quantile_of_good(peaks, self.options['quantile'], 'PatchMemorySource')

    def maps(self, images: torch.Tensor, samples: Sequence = ()) -> torch.Tensor:
        if not self.memory:
            raise UsageError('PatchMemorySource: nothing is remembered yet, call fit with good images first')
        distance = self.of_others(images, [sample.get('img_path') for sample in samples])
        return distance / (distance + self.scale)

    def of_others(self, images: torch.Tensor, paths: Sequence[str | None]) -> torch.Tensor:
        """The d of each pixel (B, H, W), without the patches of an image itself."""
        distance = self.distance(images)
        for place, path in enumerate(paths):
            if path in self.paths and len(self.paths) > 1:
                own = self.paths.index(path)
                memory = [m[o != own] for m, o in zip(self.memory, self.owners, strict=True)]
                distance[place] = self.distance(images[place : place + 1], memory)[0]
        return distance

    def distance(self, images: torch.Tensor, memory: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """The d of each pixel (B, H, W)."""
        layers = []
        for feature, known in zip(self.features(images), memory or self.memory, strict=True):
            rows = feature.permute(0, 2, 3, 1).flatten(0, 2)
            nearest = torch.cat([(part @ known.T).amax(1) for part in rows.split(ROWS)])
            far = (1 - nearest).clamp_min(0).view(len(feature), *feature.shape[2:])
            layers.append(resize(far, images.shape[2:]))
        return torch.stack(layers).mean(0)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of each layer (B, C, h, w), of length 1 at each position."""
        found, handles = {}, []
        for name, module in named_layers(self.network, self.layers).items():
            note = lambda _module, _inputs, output, name=name: found.__setitem__(name, output)  # noqa: E731
            handles.append(module.register_forward_hook(note))
        try:
            with undisturbed(self.network), torch.no_grad(), full_precision(images):
                self.network(images.clone())
        finally:
            for handle in handles:
                handle.remove()
        return [F.normalize(_as_map(name, found.get(name), images.shape[2:]), dim=1) for name in self.layers]


def _as_map(name: str, output, size: Sequence[int]) -> torch.Tensor:
    view = feature_map(output.shape, size) if isinstance(output, torch.Tensor) else None
    if view is None:
        raise UsageError(f'layer {name}: puts out no map of {size[0]} x {size[1]} images; name another layer')
    return view(output).float()


def _built(network: dict, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(seed)
        built = MODELS.build(dict(network))
        check_pretrained(built, 'network')
        built.init_weights()
    return built.requires_grad_(False)
