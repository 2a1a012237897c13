"""The wheel carries configs and tools, and answers on a machine that has nothing else."""

import ast
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'model-index.yml')
FOLDERS = ('configs', 'kgl_mm', 'requirements', 'tools')
pytestmark = pytest.mark.skipif(not (ROOT / 'setup.py').exists(), reason='needs a checkout')


def run(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A wheel, built from a source distribution, as an index would offer it."""
    source = tmp_path_factory.mktemp('source')
    for name in BUILD:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    done = run(sys.executable, 'setup.py', '-q', 'sdist', cwd=source)
    assert done.returncode == 0, done.stderr
    archive = next((source / 'dist').glob('*.tar.gz'))
    flags = ('-q', '--no-deps', '--no-build-isolation', '--no-index')
    done = run(sys.executable, '-m', 'pip', 'wheel', *flags, '-w', source / 'dist', archive)
    assert done.returncode == 0, done.stderr
    return archive, next((source / 'dist').glob('*.whl'))


@pytest.fixture(scope='module')
def bare(built, tmp_path_factory):
    """The Python of an environment that holds the wheel and nothing else."""
    home = tmp_path_factory.mktemp('bare')
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob('lib/python*/site-packages'))
    zipfile.ZipFile(built[1]).extractall(site)
    return home / 'bin/python'


def shipped(*folders: str) -> set[str]:
    files = (path for folder in folders for path in (ROOT / folder).rglob('*') if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if '__pycache__' not in path.parts} | {'model-index.yml'}


def test_the_source_distribution_carries_what_a_wheel_is_built_from(built):
    with tarfile.open(built[0]) as bundle:
        names = {name.partition('/')[2] for name in bundle.getnames()}
    assert shipped('configs', 'tools', 'requirements') <= names


def test_the_wheel_carries_configs_and_tools_where_mim_looks(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    assert {f'kgl_mm/.mim/{name}' for name in shipped('configs', 'tools')} == {n for n in names if '.mim/' in n}
    assert {n.split('/')[0] for n in names if '.dist-info' not in n} == {'kgl_mm'}


def test_the_wheel_carries_the_templates_of_pages(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    for package in ('report', 'serve'):
        assert {str(path.relative_to(ROOT)) for path in (ROOT / f'kgl_mm/{package}/template').iterdir()} <= names


def test_the_wheel_carries_descriptions(built):
    assert 'kgl_mm/descriptions/metal.yaml' in zipfile.ZipFile(built[1]).namelist()


def test_no_mm_package_is_a_hard_requirement(built):
    bundle = zipfile.ZipFile(built[1])
    metadata = bundle.read(next(n for n in bundle.namelist() if n.endswith('METADATA'))).decode()
    required = [line for line in metadata.splitlines() if line.startswith('Requires-Dist: ')]
    assert any('mmengine' in line for line in required)
    assert not [line for line in required if 'mm' in line and 'extra ==' not in line]
    assert 'License-Expression: Apache-2.0' in metadata


def test_a_machine_without_torch_gets_an_answer(bare, tmp_path):
    assert run(bare, '-I', '-c', 'import kgl_mm; print(kgl_mm.__version__)', cwd=tmp_path).returncode == 0
    component = run(bare, '-I', '-c', 'import kgl_mm.datasets', cwd=tmp_path)
    assert 'ImportError: kgl_mm needs torch, which is not installed; ' in component.stderr
    doctor = run(bare, '-I', '-m', 'kgl_mm', 'doctor', cwd=tmp_path)
    assert doctor.returncode == 1
    assert 'torch         not installed' in doctor.stdout
    assert "pip install 'kgl_mm[onedl]'" in doctor.stdout
    assert doctor.stdout.endswith('problems\n'), doctor.stderr


def test_the_model_index_is_read_by_its_tools():
    from modelindex.load_model_index import load

    assert load(str(ROOT / 'model-index.yml')) is not None


@pytest.fixture
def make_venv(tmp_path, monkeypatch):
    """The module of ``tools/make_venv.py``, at work in ``tmp_path``."""
    spec = spec_from_file_location('make_venv', ROOT / 'tools/make_venv.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    return module


@pytest.mark.parametrize('version', [(3, 6, 15), (3, 10, 13), (3, 13, 0)])
def test_another_python_gets_one_sentence(make_venv, version, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', version)
    with pytest.raises(
        make_venv.InstallError, match=rf'needs Python 3.11 or 3.12, and .* is {version[0]}\.{version[1]};'
    ):
        make_venv.main([])


def test_a_python_without_the_venv_module_gets_one_sentence(make_venv, monkeypatch):
    monkeypatch.setattr(sys, '_base_executable', shutil.which('false'))
    with pytest.raises(
        make_venv.InstallError, match=r'creating .venv failed .*; if the venv module is what is missing'
    ):
        make_venv.create_venv()
    assert not make_venv.VENV.exists()


def test_the_installer_parses_on_python_3_6():
    ast.parse((ROOT / 'tools/make_venv.py').read_text(), feature_version=(3, 6))


def test_a_step_runs_again_until_it_has_ended_well(make_venv, tmp_path):
    calls = []

    def step(fail: bool = False) -> None:
        calls.append(fail)
        if fail:
            raise KeyboardInterrupt

    stamp = tmp_path / 'stamp'
    with pytest.raises(KeyboardInterrupt):
        make_venv.once(stamp, 'a', lambda: step(fail=True))
    for wanted in ('a', 'a', 'b', 'b'):
        make_venv.once(stamp, wanted, step)
    assert calls == [True, False, False]
    with pytest.raises(KeyboardInterrupt):
        make_venv.once(stamp, 'c', lambda: step(fail=True))
    assert not stamp.exists()


@pytest.mark.parametrize(
    ('damage', 'found'),
    [('', ''), ('a.py', 'part==1\n'), ('part-1.dist-info/RECORD', 'part==1\n'), ('cut', 'part==1\n')],
)
def test_what_a_killed_pip_left_behind_is_found(make_venv, tmp_path, damage, found):
    (tmp_path / 'a.py').write_text('x = 1\n')
    info = tmp_path / 'part-1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: part\nVersion: 1\n')
    (info / 'RECORD').write_text('a.py,sha256=x,6\npart-1.dist-info/RECORD,,\n__pycache__/a.cpython-311.pyc,,\n')
    if damage == 'cut':
        (tmp_path / 'a.py').write_text('x')
    elif damage:
        (tmp_path / damage).unlink()
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}){make_venv.FIND_DAMAGED}'
    assert run(sys.executable, '-I', '-S', '-c', code).stdout == found
