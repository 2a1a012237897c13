"""``import kgl_mm`` is free of torch and mm, and the first use of a component says what is missing."""

import subprocess
import sys

import pytest

# None in sys.modules makes Python answer an import as if the package were not there.
HIDE = 'import sys; sys.modules["{hidden}"] = None; import {component}'


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_importing_the_package_loads_neither_torch_nor_mm():
    heavy = {'torch', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmpretrain'}
    done = python(f'import sys, kgl_mm, kgl_mm.errors, kgl_mm.__main__; print({heavy} & set(sys.modules))')
    assert done.stdout == 'set()\n', done.stderr


def test_descriptions_need_neither_torch_nor_mm():
    heavy = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain'}
    done = python(f'import sys, kgl_mm.descriptions.sheet as sheet; sheet.render; print({heavy} & set(sys.modules))')
    assert done.stdout == 'set()\n', done.stderr


@pytest.mark.parametrize(
    ('hidden', 'component'),
    [
        ('cv2', 'kgl_mm.descriptions'),
        ('torch', 'kgl_mm.datasets'),
        ('torch', 'kgl_mm.engine'),
        ('torch', 'kgl_mm.models'),
        ('torch', 'kgl_mm.priors'),
        ('torch', 'kgl_mm.saliency'),
        ('cv2', 'kgl_mm.visualization'),
        ('torchvision', 'kgl_mm.models'),
    ],
)
def test_a_component_says_in_one_sentence_what_to_install(hidden, component):
    done = python(HIDE.format(hidden=hidden, component=component))
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f'ImportError: kgl_mm needs {hidden}, which is not installed; ')
    assert "pip install 'kgl_mm[onedl]'" in last_line
