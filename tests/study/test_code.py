import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kgl_mm
from kgl_mm.engine.config import load_config
from kgl_mm.engine.stages import stages_of
from kgl_mm.study import code
from kgl_mm.study.code import code_hash, components

FILES = {
    '__init__.py': '',
    'engine/__init__.py': '',
    'engine/run.py': 'from kgl_mm.files import read',
    'files.py': '',
    'models/__init__.py': 'from .heads import Head\nfrom .blind import Blind',
    'models/heads/__init__.py': 'from .head import Head as Head',
    'models/heads/head.py': 'from ..parts import part\n@MODELS.register_module()\nclass Head: ...',
    'models/heads/sizes.yaml': '',
    'models/parts.py': "NORM = dict(type='kgl_mm.Norm')",
    'models/norm.py': "@MODELS.register_module(name='Norm', force=True)\nclass Norm: ...",
    'models/blind.py': '@MODELS.register_module()\nclass Blind: ...',
    'models/user.py': 'from kgl_mm.models import Head\n@MODELS.register_module()\nclass User: ...',
    'models/late.py': 'def f():\n    import kgl_mm.files\n    import kgl_mm.models.blind as b\n',
    'models/whole.py': 'from kgl_mm import models\n@MODELS.register_module()\nclass Whole: ...',
    'study/table.py': '',
    'visualization/draw.py': '',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package; what it gives is called with a file to change, and says the new hash of some components."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kgl_mm, '__file__', str(tmp_path / '__init__.py'))

    def hash_of(names, changed=None):
        if changed:
            (tmp_path / changed).write_text(FILES[changed] + '\n# changed')
        code._package.cache_clear()
        code_hash.cache_clear()
        return code_hash(names)

    yield hash_of
    monkeypatch.undo()
    code._package.cache_clear()
    code_hash.cache_clear()


ALWAYS = {'engine/run.py', 'files.py'}
HEAD = ALWAYS | {'models/heads/head.py', 'models/heads/sizes.yaml', 'models/parts.py', 'models/norm.py'}


@pytest.mark.parametrize(
    ('names', 'counts'),
    [
        ('', ALWAYS),
        ('Head', HEAD),
        ('User', HEAD | {'models/user.py'}),
        ('Blind', ALWAYS | {'models/blind.py'}),
        ('Whole', HEAD | {'models/whole.py', 'models/__init__.py', 'models/blind.py'}),
        ('NotOurs', ALWAYS),
    ],
)
def test_a_file_counts_where_a_component_or_the_engine_needs_it(package, names, counts):
    before = package(names)
    for name in FILES:
        assert (package(names, name) != before) == (name in counts), name
        before = package(names)


def test_imports_inside_functions_and_by_full_name_count(package):
    package('')
    assert code._package().needs('kgl_mm.models.late') == {'kgl_mm.files', 'kgl_mm.models.blind'}


def test_components_of_a_config_are_those_of_its_own_not_of_its_variants():
    stages = stages_of(load_config('studies/ksdd_avg.py'))
    first, second = (components(stages[name]).split() for name in ('stage1', 'stage2'))
    assert 'ConsistentClassifier' not in second  # one of the variants has it
    assert 'KnowledgeInjectionHead' in second
    assert {'SlimVGG', 'KolektorSDD', 'DefectMetric'} <= set(first) & set(second)


def test_the_files_found_by_reading_are_those_that_python_loads():
    """Against Python itself: all that it loads for the engine's run, but for folders that only hand names on.

    And nothing that it loads, components included, is missed.
    """
    import_all = 'import sys, kgl_mm.engine.run; print(*(m for m in sys.modules if m.startswith("kgl_mm")))'
    out = subprocess.run([sys.executable, '-c', import_all], capture_output=True, text=True, check=True).stdout
    package = code._Package(Path(kgl_mm.__file__).parent)

    def closure(*waiting):
        waiting, found = list(waiting), set()
        while waiting:
            if (module := waiting.pop()) not in found:
                found.add(module)
                waiting += package.needs(module)
        return found

    loaded = {name for name in out.split() if '.' in name and name.split('.')[1] not in code.ABOVE} - package.folders
    elsewhere = {'kgl_mm._require', 'kgl_mm.engine.atomic_backend'}  # what is installed, and how files are written
    assert loaded - closure(code.RUNS, *package.homes.values()) <= elsewhere
    found = closure(code.RUNS)
    for module in found:
        importlib.import_module(module)
    assert {'kgl_mm.engine.stages', 'kgl_mm.models.heads.knowledge_injection_head', 'kgl_mm.errors'} <= found
    assert 'kgl_mm.models.blocks.ssp_conv' not in found


def test_every_component_is_found_where_it_is_defined():
    from mmengine.registry import Registry

    from kgl_mm import registry

    homes = code._Package(Path(kgl_mm.__file__).parent).homes
    for children in (value for value in vars(registry).values() if isinstance(value, Registry)):
        if children.scope == 'kgl_mm':
            children.import_from_location()
            ours = {k: v for k, v in children.module_dict.items() if v.__module__.startswith('kgl_mm.')}
            # without those of doctests, which are in no module
            ours = {k: v for k, v in ours.items() if getattr(sys.modules[v.__module__], v.__name__, None) is v}
            shown = {k for k, v in ours.items() if v.__module__.split('.')[1] in code.ABOVE}
            assert ours
            assert {k: homes.get(k) for k in set(ours) - shown} == {k: ours[k].__module__ for k in set(ours) - shown}
