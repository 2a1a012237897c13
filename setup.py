import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools where mim and mmengine look for them: ``kgl_mm/.mim``.

    An editable installation gets links, so that a config edited in the checkout is the one that is used.
    """

    def run(self):
        super().run()
        mim = HERE / 'kgl_mm/.mim' if self.editable_mode else Path(self.build_lib, 'kgl_mm/.mim')
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for part in MIM_PARTS:
            if self.editable_mode:
                (mim / part).symlink_to(os.path.relpath(HERE / part, mim))
            elif (HERE / part).is_dir():
                shutil.copytree(HERE / part, mim / part, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(HERE / part, mim / part)


def requirements(name: str) -> list[str]:
    lines = (HERE / f'requirements/{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='kgl_mm',
    version=re.search(r"__version__ = '(.+)'", (HERE / 'kgl_mm/__init__.py').read_text()).group(1),
    description='Knowledge-prior guided learning for mmpretrain: train inspectors with few labelled defects',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=find_packages(include=['kgl_mm', 'kgl_mm.*']),
    package_data={
        'kgl_mm.descriptions': ['*.yaml'],
        'kgl_mm.report': ['template/*'],
        'kgl_mm.serve': ['template/*'],
    },
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name)
        for name in ('onedl', 'openmmlab', 'serve', 'export', 'openvino', 'boxes', 'clip', 'dev')
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
