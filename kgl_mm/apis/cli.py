"""What the tools share: arguments, one-sentence errors, and where to go on after an interruption.

Nothing here imports torch before the arguments are parsed, so that a wrong word is answered at once.
"""

import argparse
import ctypes
import difflib
import os
import re
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kgl_mm.errors import UsageError


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all tools have."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument('config', help='a config file; those of this project are found from any directory')
    result.add_argument('--work-dir', help='where results go (default: work_dirs/CONFIG)')
    result.add_argument('--data', metavar='DIR', help='the root of the data set')
    result.add_argument(
        '--data-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings for the data sets of all splits, such as fold=1 num_positives=10 val_fraction=0.2 cache=memory',
    )
    result.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override fields of the config, dots inside'
    )
    result.add_argument('--seed', type=int, help='the seed of everything random')
    result.add_argument('--device', help='cpu, cuda or cuda:N (default: a GPU where there is one)')
    result.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    result.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return result


def run(main: Callable[[], None]) -> None:
    """Run a tool: a :class:`UsageError` becomes one sentence and status 2, Ctrl-C status 130."""
    keep_freed_memory()
    try:
        main()
        if sys.stdout:
            sys.stdout.flush()
    except UsageError as error:
        rank = os.environ.get('RANK', '0')
        if rank == '0':
            print(f'error: {_sentence(error)}', file=sys.stderr)
        elif _work_is_shared():  # the others may not have met it
            print(f'error in process {rank}: {_sentence(error)}', file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing more is said of it at the end
        sys.exit(141)
    except OSError as error:
        if error.filename is None:
            raise
        print(f'error: {error.filename}: {error.strerror}', file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) or 'kgl_mm' not in str(error):
            raise
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemError) as stop:
        # OpenCV answers an interrupt with a SystemError of its own
        if isinstance(stop, SystemError):
            if not isinstance(stop.__cause__, KeyboardInterrupt):
                raise
            stop = stop.__cause__
        print(f'\ninterrupted{f": {stop}" if str(stop) else ""}', file=sys.stderr)
        sys.exit(130)


def _reader_has_left() -> bool:
    """Whether it is standard output that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 2 GiB, unless the environment says how it should handle memory.

    Otherwise each large buffer of a training step on the CPU is mapped, cleared by the kernel and unmapped again.
    """
    if any(name.startswith('MALLOC_') for name in os.environ) or 'GLIBC_TUNABLES' in os.environ:
        return
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


def _work_is_shared() -> bool:
    torch = sys.modules.get('torch')
    return bool(torch and torch.distributed.is_available() and torch.distributed.is_initialized())


def _sentence(error: UsageError) -> str:
    """The message itself, also where it comes out of a data worker with its traceback around it."""
    return str(error).strip().rsplit('UsageError: ', maxsplit=1)[-1]


def choose_device(device: str | None) -> None:
    """Before torch starts, hide the GPUs that are not asked for; afterwards a missing one is said."""
    if device is None:
        return
    kind, _, index = device.partition(':')
    if kind not in ('cpu', 'cuda') or (index and (kind == 'cpu' or not index.isdigit())):
        raise UsageError(f'--device {device}: not a device; use cpu, cuda or cuda:N')
    if kind == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        return
    import torch

    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f'--device {device}: there are {torch.cuda.device_count()} CUDA devices here; use --device cpu'
        )
    torch.cuda.set_device(int(index or 0))


def configure(args: argparse.Namespace):
    """The resolved config of a tool's arguments."""
    choose_device(args.device)
    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.engine.config import load_config, set_data
    from kgl_mm.engine.stages import overruled

    options = key_values('--cfg-options', args.cfg_options)
    cfg = load_config(args.config, options)
    if os.environ.get('RANK', '0') == '0':
        for key in dict.fromkeys(key.partition('.')[0] for key in options):
            if near := difflib.get_close_matches(key, cfg.keys() - {key}, 1, 0.85):
                print(f'note: --cfg-options {key}: did you mean {near[0]}?', file=sys.stderr)
        for key, stays in overruled(cfg, options).items():
            print(f'note: --cfg-options {key} does not reach the stage that has its own: {stays}', file=sys.stderr)
    settings = key_values('--data-options', args.data_options)
    if args.data:
        if not Path(args.data).is_dir():
            raise UsageError(f'--data {args.data}: no such folder')
        settings['data_root'] = args.data
    if settings:
        set_data(cfg, **settings)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    elif (cfg.get('randomness') or {}).get('seed') is None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=0)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    return cfg


def key_values(option: str, words: list[str]) -> dict:
    """``['a.b=1', 'c=x']`` as a dict: values as mmengine's ``DictAction`` reads them, in quotes a word.

    >>> key_values('--cfg-options', ['a.b=1', 'c=[x,2.5]', 'd=True', "arch='121'"])
    {'a.b': 1, 'c': ['x', 2.5], 'd': True, 'arch': '121'}
    """
    result = {}
    for word in words:
        key, separator, value = word.partition('=')
        if not separator or not key:
            raise UsageError(f'{option} {word}: not of the form KEY=VALUE')
        result[key] = _value(value)
    return result


def _value(text: str) -> Any:
    """As mmengine's ``DictAction`` reads it, but words keep the spaces between them.

    >>> _value('[metal surface, 2.5]')
    ['metal surface', 2.5]
    """
    from mmengine.config import DictAction

    def spaced(value):
        if isinstance(value, list | tuple):
            return type(value)(map(spaced, value))
        return value.replace('\0', ' ') if isinstance(value, str) else value

    if quoted := re.fullmatch(r'([\'"])([^\'"]*)\1', text):
        return quoted[2]
    is_word = re.search(r'[^\]\[(),\s]\s*[\[(]', text)  # with brackets inside
    text = re.sub(r'\s*,\s*' if is_word else r'\s*([\]\[(),])\s*', ',' if is_word else r'\1', text)
    try:
        return spaced(DictAction._parse_iterable(text.strip().replace(' ', '\0')))
    except (AssertionError, RecursionError):
        raise UsageError(f'{text}: not understood; of a dict give each field as KEY.FIELD=VALUE') from None


def value_lists(option: str, words: list[str]) -> dict[str, list]:
    """``['a.b=1,2', 'c=[x,y],z']`` as the values of each key; commas in brackets belong to a value.

    >>> value_lists('--set', ['a.b=1,2', 'c=[x,y],z'])
    {'a.b': [1, 2], 'c': [['x', 'y'], 'z']}
    """
    result = {}
    for word in words:
        key, separator, text = word.partition('=')
        values, depth = [''], 0
        for letter in text:
            depth += (letter in '[(') - (letter in '])')
            if letter == ',' and not depth:
                values.append('')
            else:
                values[-1] += letter
        if not separator or not key or '' in values:
            raise UsageError(f'{option} {word}: not of the form KEY=VALUE,VALUE')
        if key in result:
            raise UsageError(f'{option} {word}: {key} is varied twice')
        result[key] = [_value(value) for value in values]
    return result
