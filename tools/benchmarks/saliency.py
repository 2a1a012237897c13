"""Time the saliency methods against the least that any could cost, and against grad-cam where it is installed.

All rows of a network share weights, images, batch and machine, and take turns; a ratio is the median over the rounds.
"""

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed

import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from kgl_mm.apis import cli
from kgl_mm.saliency import FullGrad, GradCAM, LayerCAM, explain
from kgl_mm.saliency.layers import choose_layers
from kgl_mm.saliency.one_pass import undisturbed

NETWORKS = dict(
    vgg16=(dict(type='VGG', depth=16), 512, (224, 640)),
    vgg16_bn=(dict(type='VGG', depth=16, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')), 512, (224, 640)),
    resnet50=(dict(type='ResNet', depth=50), 2048, (224, 224)),
)


def build(backbone: dict, channels: int) -> torch.nn.Module:
    """A classifier whose batch norm has statistics and whose logits differ, so that no term is zero."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        neck = dict(type='GlobalAveragePooling')
        head = dict(type='LinearClsHead', num_classes=2, in_channels=channels, topk=(1,))
        model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def least(model, images, layer: str | None) -> Callable[[], None]:
    """Forward, and backward of data gradients down to a layer (or the image): what no method can do without."""
    roots = []

    def begin(_module, _inputs, output):
        roots.append(output.detach().requires_grad_())
        return roots[-1]

    def run():
        with undisturbed(model):
            roots[:] = [images.detach().requires_grad_()]
            if layer is None:
                score = model(roots[0].clone())
            else:
                handle = model.get_submodule(layer).register_forward_hook(begin)
                score = model(images)
                handle.remove()
            torch.autograd.grad((score[:, 1] - score[:, 0]).sum(), roots[-1])

    return run


def rows(model, images) -> dict[str, Callable]:
    layers = choose_layers(model, images, 4)
    layer_cam = LayerCAM(model, layers, fuse='mean')
    grad_cam = GradCAM(model, layers[-1:])
    full_grad = FullGrad(model, scale='channel')
    full_grad_layer = FullGrad(model, scale='layer')
    result = {
        'least for LayerCAM': least(model, images, layers[0]),
        'least for FullGrad': least(model, images, None),
        'LayerCAM': lambda: layer_cam(images),
        'FullGrad': lambda: full_grad(images),
        'FullGrad by layer': lambda: full_grad_layer(images),
        'all three': lambda: explain([layer_cam, grad_cam, full_grad], images),
    }
    try:
        import pytorch_grad_cam as other
    except ImportError:
        print('grad-cam is not installed: no comparison with it')
        return result
    targets = [lambda logits: logits[1] - logits[0]] * len(images)
    for name in ('LayerCAM', 'FullGrad'):
        its = copy.deepcopy(model)  # hooks stay, and would slow down the others
        cam = getattr(other, name)(its, [its.get_submodule(layer) for layer in layers if name == 'LayerCAM'])
        cam.batch_size = len(images)
        result[f'grad-cam {name}'] = lambda cam=cam: torch.from_numpy(cam(images, targets))
    return result


def largest_difference(method: str, model, images) -> float:
    """From grad-cam's maps, layer by layer, since of several layers grad-cam stretches each from its minimum."""
    import pytorch_grad_cam as other

    model = copy.deepcopy(model)
    targets = [lambda logits: logits[1] - logits[0]] * len(images)
    layers = choose_layers(model, images, 4) if method == 'LayerCAM' else [None]
    differences = []
    for layer in layers:
        ours = LayerCAM(model, [layer]) if layer else FullGrad(model, scale='channel')
        maps = ours(images).cpu()
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        with getattr(other, method)(model, [model.get_submodule(layer)] if layer else []) as cam:
            theirs = cam(images, targets)
        differences.append(float(((maps - low) / (high - low) - torch.from_numpy(theirs)).abs().max()))
    return max(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ratios = []
    for name in args.networks:
        backbone, channels, size = NETWORKS[name]
        model = build(backbone, channels).to(args.device)
        images = torch.randn(args.batch, 3, *size, device=args.device)
        functions = rows(model, images)
        for function in functions.values():
            function()  # the warm-up
        seconds = {row: [] for row in functions}
        for _ in range(args.rounds):
            for row, function in functions.items():
                if args.device != 'cpu':
                    torch.cuda.synchronize()
                start = time.perf_counter()
                function()
                if args.device != 'cpu':
                    torch.cuda.synchronize()
                seconds[row].append(time.perf_counter() - start)
        print(f'\n{name}, {args.batch} images of {size[0]} x {size[1]}, {args.device}, {args.threads} threads')
        for row, values in seconds.items():
            print(f'  {row:<20} {statistics.median(values) / args.batch * 1000:8.1f} ms an image')

        def ratio(over, under, seconds=seconds):
            return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))

        for method in ('LayerCAM', 'FullGrad', 'FullGrad by layer'):
            limit = f'least for {method.split()[0]}'
            ratios.append(f'{name} {method} costs {ratio(method, limit):.2f} times the least')
        ratios.append(f'{name} all three cost {ratio("all three", "least for FullGrad"):.2f} times the least')
        for method in ('LayerCAM', 'FullGrad'):
            if f'grad-cam {method}' in seconds:
                difference = largest_difference(method, model, images)
                faster = f'{ratio(f"grad-cam {method}", method):.2f} times as fast as grad-cam'
                ratios.append(f'{name} {method} is {faster} (largest difference of a map {difference:.0e})')
    print()
    print('\n'.join(ratios))


if __name__ == '__main__':
    cli.run(main)
