import os
import platform
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import DictAction

from kgl_mm.apis import cli
from kgl_mm.errors import UsageError


def ends(error, cause=None):
    def main():
        raise error from cause

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    return stop.value.code


def test_what_is_the_users_to_mend_is_a_sentence(capsys):
    assert ends(UsageError('no such folder')) == 2
    assert capsys.readouterr().err == 'error: no such folder\n'


def test_a_file_that_cannot_be_written_is_a_sentence_too(capsys):
    assert ends(IsADirectoryError(21, 'Is a directory', 'out.json')) == 2
    assert capsys.readouterr().err == 'error: out.json: Is a directory\n'


def test_an_interrupt_is_one_wherever_it_comes(capsys):
    assert ends(KeyboardInterrupt('go on with --resume')) == 130
    assert ends(SystemError('<imdecode> returned a result with an exception set'), KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == '\ninterrupted: go on with --resume\n\ninterrupted\n'


def test_who_reads_may_leave():
    code = 'from kgl_mm.apis import cli; cli.run(lambda: [print("x" * 99) for _ in range(9999)])'
    words = f'"{sys.executable}" -c \'{code}\' | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', words], capture_output=True, text=True)
    assert done.stdout.split() == ['x' * 99, '141']
    assert not done.stderr
    nowhere = subprocess.run(['bash', '-c', f'"{sys.executable}" -c "{code.replace(chr(34), chr(39))}" >&-'])
    assert nowhere.returncode == 0


def test_another_pipe_that_breaks_is_a_fault():
    def main():
        raise BrokenPipeError(32, 'Broken pipe')

    with pytest.raises(BrokenPipeError):
        cli.run(main)


def test_another_fault_keeps_its_traceback():
    def main():
        raise SystemError('of another kind')

    with pytest.raises(SystemError, match='another kind'):
        cli.run(main)


@given(st.lists(st.from_regex(r'[b-mo-z]{1,5}( [b-mo-z]{1,5}){0,2}', fullmatch=True), min_size=1, max_size=3))
def test_words_keep_the_spaces_between_them(words):
    assert cli.key_values('--x', [f'a={words[0]}'])['a'] == words[0]
    assert cli.key_values('--x', [f'a=[{" , ".join(words)}]'])['a'] == words
    assert cli.value_lists('--x', [f'a={words[0]},( {words[-1]} , 2 )'])['a'] == [words[0], (words[-1], 2)]
    assert cli.key_values('--x', ['a=/my (new) parts/x.csv'])['a'] == '/my (new) parts/x.csv'
    found = cli.key_values('--x', ['a=1, 2', 'b=1,[2, 3]', 'c=( [ 2 ] , 3)'])
    assert found == dict(a=[1, 2], b=[1, [2, 3]], c=([2], 3))


@given(st.recursive(st.integers() | st.booleans() | st.none(), lambda part: st.lists(part, min_size=1, max_size=3)))
def test_all_else_is_read_as_mmengine_reads_it(value):
    assert cli.key_values('--x', [f'a={value}'])['a'] == DictAction._parse_iterable(str(value))


@pytest.mark.parametrize('text', ["dict(type='Pretrained', checkpoint='a.pth')", '[1,2'])
def test_what_is_no_value_is_said(text):
    with pytest.raises(UsageError, match=r'not understood; of a dict give each field as KEY\.FIELD=VALUE'):
        cli.key_values('--cfg-options', [f'model.teacher.init_cfg={text}'])


FAULTS = """
import resource
from kgl_mm.apis import cli

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b'x' * 2**27
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cli.run(lambda: print(faults(), faults()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library keeps memory in its own way')
@pytest.mark.parametrize(('environment', 'kept'), [({}, True), ({'MALLOC_ARENA_MAX': '8'}, False)])
def test_memory_is_used_again_unless_the_environment_says_how(environment, kept):
    others = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC_', 'GLIBC_TUNABLES'))}
    run = subprocess.run([sys.executable, '-c', FAULTS], env=others | environment, capture_output=True, text=True)
    first, second = map(int, run.stdout.split())
    assert (second * 4 < first) == kept
