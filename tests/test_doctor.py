"""The doctor tells the two mm families apart by who installed the imported file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kgl_mm import doctor

MM = ('mmengine', 'mmcv', 'mmpretrain')


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder before all others on the path, and a function that installs an empty package into it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in MM:
        monkeypatch.delitem(sys.modules, package, raising=False)

    def install(distribution: str, package: str, source: Path | None = None) -> None:
        folder = (source or tmp_path) / package
        folder.mkdir(exist_ok=True, parents=True)
        (folder / '__init__.py').write_text("__version__ = '1'\n")
        info = tmp_path / f'{distribution.replace("-", "_")}-1.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n')
        if source:
            direct = dict(url=source.as_uri(), dir_info=dict(editable=True))
            (info / 'direct_url.json').write_text(json.dumps(direct))
            monkeypatch.syspath_prepend(str(source))

    return install


def test_onedl(site):
    for package in MM:
        site(f'onedl-{package}', package)
    assert doctor.family() == 'onedl'


def test_openmmlab_with_any_edition_of_mmcv(site, tmp_path):
    for distribution, package in (('mmengine', 'mmengine'), ('mmcv-lite', 'mmcv'), ('mmpretrain', 'mmpretrain')):
        site(distribution, package)
    (tmp_path / 'numpy-2.0.dist-info').mkdir()  # as a pip that was killed leaves it
    assert doctor.owners('mmcv') == {'mmcv-lite'}
    assert doctor.family() == 'openmmlab'


def test_one_family_laid_over_the_other_is_a_problem_with_a_remedy(site):
    for package in MM:
        site(f'onedl-{package}', package)
    site('mmengine', 'mmengine')
    assert doctor.owners('mmengine') == {'mmengine', 'onedl-mmengine'}
    assert doctor.family() == 'mixed'
    assert 'uninstall -y mmengine onedl-mmcv onedl-mmengine onedl-mmpretrain' in doctor._family().remedy


def test_a_family_behind_another_on_the_path_does_not_count(site, tmp_path, monkeypatch):
    for package in MM:
        site(f'onedl-{package}', package)
    behind = tmp_path / 'behind'
    (behind / 'mmengine').mkdir(parents=True)
    (behind / 'mmengine/__init__.py').touch()
    (behind / 'mmengine-1.dist-info').mkdir()
    (behind / 'mmengine-1.dist-info/METADATA').write_text('Metadata-Version: 2.1\nName: mmengine\nVersion: 1\n')
    monkeypatch.setattr(sys, 'path', [sys.path[0], str(behind), *sys.path[1:]])
    assert doctor.family() == 'onedl'


def test_an_editable_installation_is_owned_by_its_source(site, tmp_path):
    for package in MM:
        site(package, package, source=tmp_path / 'my checkout')
    assert doctor.family() == 'openmmlab'


def test_no_family(monkeypatch):
    monkeypatch.setattr(doctor, 'find_spec', lambda name: None)
    assert doctor.family() is None


def test_this_environment_is_whole(capsys):
    assert doctor.main() == 0
    report = capsys.readouterr().out
    assert report.endswith('all good\n')
    for package in ('torch', *MM):
        assert str(Path(sys.modules[package].__file__).parent) in report


def test_what_is_missing_or_broken_is_counted_and_sets_the_exit_status(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, 'find_spec', lambda name: None if name == 'mmcv' else doctor.sys.modules['torch'])
    (tmp_path / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, 'owners', lambda package: {package})
    assert doctor.main() == 1
    report = capsys.readouterr().out
    assert 'mmcv          not installed\n' in report
    assert 'does not import: operator torchvision::nms does not exist' in report
    assert report.endswith('\n2 problems\n')


def test_too_new_a_transformers_is_said(monkeypatch):
    monkeypatch.setattr(doctor, 'version', lambda name: '5.24.0')
    monkeypatch.setattr(doctor, 'transformers_limit', lambda: '5')
    (finding,) = doctor._transformers()
    assert finding.state.startswith('5.24.0, so ')
    assert "pip install 'transformers<5'" in finding.state
    assert not finding.remedy  # as nothing here needs it
    monkeypatch.setattr(doctor, 'transformers_limit', lambda: '')
    assert list(doctor._transformers()) == []


def test_models_that_do_not_import_are_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain.models', None)
    finding = doctor._models()
    assert finding.state.startswith('do not import: ')
    assert finding.remedy.startswith('put right what this names, or ')


def test_data_sets_are_looked_for_where_the_configs_look(monkeypatch, tmp_path):
    monkeypatch.setenv('KGL_DATA_ROOT', str(tmp_path))
    (tmp_path / 'KolektorSDD').mkdir()
    assert doctor._data('KolektorSDD').state == str(tmp_path / 'KolektorSDD')
    assert doctor._data('KolektorSDD2').state.startswith(f'not in {tmp_path}')


@pytest.mark.parametrize('arguments', [[], ['docto'], ['doctor', '--loud']])
def test_unknown_arguments_give_the_usage(arguments):
    done = subprocess.run([sys.executable, '-m', 'kgl_mm', *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: python -m kgl_mm')
