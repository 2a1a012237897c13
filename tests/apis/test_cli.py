import pytest

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


def test_an_interrupt_is_one_wherever_it_comes(capsys):
    assert ends(KeyboardInterrupt('go on with --resume')) == 130
    assert ends(SystemError('<imdecode> returned a result with an exception set'), KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == '\ninterrupted: go on with --resume\n\ninterrupted\n'


def test_another_fault_keeps_its_traceback():
    def main():
        raise SystemError('of another kind')

    with pytest.raises(SystemError, match='another kind'):
        cli.run(main)
