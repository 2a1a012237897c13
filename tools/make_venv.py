"""Build .venv with the tested, pinned set; `make venv` and `make venv-openmmlab` call it.

Standard library only, and no syntax newer than Python 3.6: an older Python must reach the sentence that says so.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
LOG = VENV / 'install.log'
PYTHON = VENV / 'bin/python'
OPENMMLAB = VENV / 'openmmlab'
REQUIREMENTS = ROOT / 'requirements'
ACCEPTED = ((3, 11), (3, 12))

# Names the distributions of which a file is missing or cut short, as a pip that was killed leaves them.
FIND_DAMAGED = """
import csv, pathlib
from importlib.metadata import distributions
for dist in distributions():
    rows = list(csv.reader((dist.read_text('RECORD') or '').splitlines()))
    sizes = {pathlib.Path(dist.locate_file(name)): int(size or 0) for name, _, size in rows if name[-4:] != '.pyc'}
    if not all(path.exists() and path.stat().st_size >= size for path, size in sizes.items()) or not sizes:
        print('=='.join(dist._path.stem.rsplit('-', 1)))  # its own record of them may be gone too
"""


class InstallError(Exception):
    """One sentence for the user."""


def fingerprint(*paths):
    """Everything that decides what is installed, and where."""
    digest = hashlib.sha256(repr((sys.version_info[:2], str(VENV))).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip_install(step, *arguments):
    """Run pip with its output in the log; show only the large downloads, which are what one waits for."""
    command = [PYTHON, '-I', '-m', 'pip', '--no-input', '--disable-pip-version-check', 'install', *arguments]
    last_error = ''
    with LOG.open('a') as log:
        print('$', *command, file=log, flush=True)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            print(line, end='', file=log, flush=True)
            large = re.match(r'\s*Downloading (\S+?)-\d\S* .*\((\d\d+\.?\d* MB|.* GB)\)', line)
            if large:
                print(f'  downloading {large[1]} ({large[2]})', flush=True)
            elif line.startswith('Installing collected'):
                print('  unpacking ...', flush=True)
            elif line.startswith('ERROR: '):
                last_error = f' (pip says: {line[len("ERROR: ") :].strip().rstrip(".")})'
    if process.wait() != 0:
        raise InstallError(
            f'{step} failed{last_error}; the whole output is in {os.path.relpath(LOG)}: check the network and the '
            'disk space (6 GB), then run it again, which goes on where it stopped'
        )


def venv_is_usable():
    """Whether .venv stands where it was made, runs, has pip, and is of the Python that runs this."""
    probe = 'import pip, sys; print(*sys.version_info[:2], sys.prefix)'
    try:
        found = subprocess.run([PYTHON, '-I', '-c', probe], capture_output=True, text=True, check=True).stdout
        made = (VENV / 'pyvenv.cfg').read_text()
    except (OSError, subprocess.CalledProcessError):
        return False
    major, minor = sys.version_info[:2]
    return found == f'{major} {minor} {VENV}\n' and made.rstrip().endswith(f'-m venv {VENV}')


def create_venv():
    version = '{}.{}'.format(*sys.version_info)
    print(f'make venv: creating .venv with Python {version}', flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    # The base executable, since the Python that runs this may be the one of the .venv just removed.
    made = subprocess.run([sys._base_executable, '-m', 'venv', VENV], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        reason = ' '.join((made.stderr or made.stdout).split())[:200]
        raise InstallError(
            f'creating .venv failed ({reason}); if the venv module is what is missing, install it '
            f'(Debian, Ubuntu: apt install python{version}-venv)'
        )


def install():
    """The package, editable, with one mm family and the tools for development."""
    print('make venv: installing the pinned set, about 5 GB, some minutes; log: .venv/install.log', flush=True)
    pinned = ['-c', REQUIREMENTS / 'constraints.txt']
    pip_install('installing the packages', *pinned, '-e', '.[onedl,serve,export,openvino,boxes,clip,dev]')
    # without what they ask for: a second OpenCV would be laid over the first
    pip_install('installing what tests compare with', *pinned, '--no-deps', '-r', REQUIREMENTS / 'compare.txt')
    # mmengine needs it, and it writes a cache when first imported, which processes that come together find half written
    subprocess.run([PYTHON, '-I', '-c', 'import yapf'], check=True)
    damaged = subprocess.check_output([PYTHON, '-I', '-c', FIND_DAMAGED], text=True).split()
    if damaged:
        pip_install(f'repairing {", ".join(damaged)}', *pinned, '--no-deps', '--ignore-installed', *damaged)


def install_openmmlab():
    """The other family in a folder of its own: its import names are the same, so it must not go over the first."""
    print('make venv: laying the OpenMMLab family beside, in .venv/openmmlab', flush=True)
    shutil.rmtree(OPENMMLAB, ignore_errors=True)
    wanted = ['-r', REQUIREMENTS / 'openmmlab.txt']
    pip_install('installing the OpenMMLab family', '--no-deps', '--target', OPENMMLAB, *wanted)


def once(stamp, wanted, step):
    """Run the step unless its stamp, written last, says that it has been done with the same input."""
    if not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        step()
        stamp.write_text(wanted)


def main(arguments):
    if sys.version_info[:2] not in ACCEPTED:
        raise InstallError(
            'kgl_mm needs Python 3.11 or 3.12, and {} is {}.{}; name another, for instance with '
            'make venv PYTHON=python3.12'.format(sys.executable, *sys.version_info)
        )
    if arguments not in ([], ['openmmlab']):
        raise InstallError('usage: python3 tools/make_venv.py [openmmlab]')
    if not venv_is_usable():
        create_venv()
    names = 'constraints runtime onedl openmmlab serve export openvino boxes clip dev compare'
    files = [REQUIREMENTS / f'{name}.txt' for name in names.split()]
    once(VENV / 'stamp', fingerprint(ROOT / 'setup.py', *files), install)
    if arguments:
        once(VENV / 'stamp-openmmlab', fingerprint(REQUIREMENTS / 'openmmlab.txt'), install_openmmlab)


if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except InstallError as error:
        sys.exit(f'make venv: {error}.')
    except OSError as error:
        sys.exit(f'make venv: {error}; check permissions and disk space (6 GB), then run it again.')
    except KeyboardInterrupt:
        sys.exit('make venv: stopped; run it again to go on.')
